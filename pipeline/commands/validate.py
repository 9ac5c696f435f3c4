"""`python -m pipeline.commands.validate`: read params.yaml and say everything that is wrong with it."""

from __future__ import annotations

import argparse

from pipeline.params import load_params
from serving.contract.command import program_name
from serving.contract.errors import run_command


def main() -> int:
    """Nothing is printed where params.yaml is right."""
    argparse.ArgumentParser(prog=program_name("pipeline.commands.validate"), description=__doc__).parse_args()
    load_params()
    return 0


if __name__ == "__main__":
    run_command(main)
