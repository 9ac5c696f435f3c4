"""Check the dataset and write what training reads: `python -m pipeline.stages.prepare [--strict]`."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from pipeline.data.preparing.preparation import prepare
from pipeline.layout.paths import PREPARED_DIR
from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command


def main() -> int:
    """Prepare the dataset."""
    parser = argparse.ArgumentParser(prog=program_name("pipeline.stages.prepare"), description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail on what is otherwise only warned of")
    arguments = parser.parse_args()
    params = load_params()
    signal.signal(signal.SIGTERM, _stop)
    done = prepare(params.prepare, PREPARED_DIR, strict=arguments.strict, progress=True)
    for note in done.notes:
        sys.stderr.write(f"note: {note}\n")
    for warning in done.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    counts = ", ".join(f"{count} {split}" for split, count in done.pairs.items())
    if done.unlabelled:
        counts += f" pairs and {done.unlabelled} unlabelled images"
    else:
        counts += " pairs"
    sys.stdout.write(f"{done.folder}: {counts}, sha256 {done.sha256[:12]}\n")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """End as an exception does, so that what is half written is removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    run_command(main)
