"""Import what a labelling tool exported: `python -m pipeline.commands.import_data SOURCE --output FOLDER`.

Writes the layout of the dataset `folder`: images linked, not copied, label maps painted from polygons and masks, and
classes.txt. Says what became of every annotation that is no mask. Runs in an environment of its own (`make formats`).
"""

from __future__ import annotations

import argparse
import sys

from pipeline.data.importing.environment import run_in_environment
from pipeline.data.importing.options import add_options
from serving.contract.command import program_name
from serving.contract.errors import run_command


def main() -> int:
    """Import; returns the exit status of what did it."""
    parser = argparse.ArgumentParser(
        prog=program_name("pipeline.commands.import_data"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.parse_args()
    return run_in_environment(sys.argv[1:])


if __name__ == "__main__":
    run_command(main)
