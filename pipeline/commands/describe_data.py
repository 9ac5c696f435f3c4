"""Look at a folder of images and labels, and say what it is: `python -m pipeline.commands.describe_data ROOT`.

Says which layout it seems to be and why, how often the classes occur, sizes, bits and orientations, what is wrong, and
the section `prepare` of params.yaml to paste; draws a sheet of labelled samples to look at. Nothing is trained, and the
folder is left as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pipeline.data.describing.description import describe_folder, to_json
from pipeline.data.describing.sheet import draw_sheet
from pipeline.data.describing.text import to_text
from pipeline.data.preparing.preparation import progress_bar
from pipeline.layout.dataset_root import resolve_root
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.images.image_io import write_image


def main() -> int:
    """Describe; exit 1 when `prepare` would refuse the folder."""
    parser = argparse.ArgumentParser(
        prog=program_name("pipeline.commands.describe_data"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", help="the folder; may hold environment variables")
    parser.add_argument("--sheet", type=Path, default=Path("describe-data.png"), help="where the sheet is drawn")
    parser.add_argument("--no-sheet", action="store_true", help="draw none")
    parser.add_argument("--limit", type=int, default=1000, help="look at so many pairs of each split (default 1000)")
    parser.add_argument("--all", action="store_true", help="look at all pairs")
    parser.add_argument("--threads", type=int, default=4, help="files read at once (default 4)")
    parser.add_argument("--json", action="store_true", help="write the description as JSON")
    arguments = parser.parse_args()
    if arguments.limit < 1 or arguments.threads < 1:
        raise UserError("--limit and --threads: expected at least 1")
    root = resolve_root(arguments.root)
    assert root is not None
    with progress_bar(not arguments.json) as bar:
        described = describe_folder(
            root, bar, limit=None if arguments.all else arguments.limit, threads=arguments.threads
        )
    description = described.description
    sheet: Path | None = None
    if not arguments.no_sheet and description.looked_at:
        sheet = arguments.sheet
        write_image(arguments.sheet, draw_sheet(described))
    if arguments.json:
        content = to_json(description) | {"sheet": None if sheet is None else str(sheet)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        sys.stdout.write(to_text(description))
        if sheet is not None:
            sys.stdout.write(f"\n{sheet}: samples with their labels; look at them before you train\n")
    return 1 if description.problems else 0


if __name__ == "__main__":
    run_command(main)
