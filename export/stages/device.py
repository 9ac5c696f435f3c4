"""Record what this machine is, so that a change of it redoes what depends on it: `python -m export.stages.device`."""

from __future__ import annotations

from export.device import describe_device
from pipeline.artifacts import REPORTS_DIR, write_json
from pipeline.branches import check_fresh
from serving.errors import run_command


def main() -> int:
    """Write reports/device.json. This stage always runs: it also refuses a branches.yaml that is out of date."""
    check_fresh()
    write_json(REPORTS_DIR / "device.json", describe_device())
    return 0


if __name__ == "__main__":
    run_command(main)
