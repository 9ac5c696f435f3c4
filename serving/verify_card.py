"""Check a folder of engines against its model card and statement: is every file there, whole, and named?

Nothing is deserialised: bytes are hashed. Exit status: 0 all files are those that card and statement name; 1 one is
damaged, missing or not named, or the card was edited; 2 the question cannot be put (no such folder, no statement).
Card and statement are unsigned: they show damage, not who wrote them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.card.checking import CardResult, check_folder
from serving.contract.command import program_name
from serving.contract.errors import run_command, shown


def lines(result: CardResult) -> list[str]:
    """What the command prints without `--json`."""
    good = sum(each.status == "pass" for each in result.files)
    return [
        f"{result.folder}: {'pass' if result.passed else 'FAIL'}",
        f"  files    {good} of {len(result.files)} are those of the statement",
        *(f"  problem  {problem}" for problem in result.problems),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program_name("serving.verify_card"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="with MODEL_CARD.md and MODEL_CARD.intoto.json")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    result = check_folder(arguments.folder)
    text = json.dumps(result.to_json(), indent=2) if arguments.json else "\n".join(map(shown, lines(result)))
    sys.stdout.write(text + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    run_command(main)
