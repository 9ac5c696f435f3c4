"""Record what this machine is, so that a change of it redoes what depends on it: `python -m export.stages.device`."""

from __future__ import annotations

import argparse

from export.machine.device import read_device
from pipeline.layout.paths import REPORTS_DIR
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import write_json


def main() -> int:
    """Write reports/device.json. This stage always runs."""
    argparse.ArgumentParser(prog=program_name("export.stages.device"), description=__doc__).parse_args()
    write_json(REPORTS_DIR / "device.json", read_device())
    return 0


if __name__ == "__main__":
    run_command(main)
