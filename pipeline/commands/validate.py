"""`python -m pipeline.commands.validate`: read params.yaml and say everything that is wrong with it."""

from __future__ import annotations

from pipeline.params import load_params
from serving.contract.errors import run_command


def main() -> int:
    """Nothing is printed where params.yaml is right."""
    load_params()
    return 0


if __name__ == "__main__":
    run_command(main)
