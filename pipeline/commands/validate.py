"""`python -m pipeline.commands.validate`: read params.yaml and say everything that is wrong with it."""

from __future__ import annotations

import argparse

from pipeline.params import PARAMS_PATH, load_params
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command


def main() -> int:
    """Nothing is printed where params.yaml is right."""
    argparse.ArgumentParser(prog=program_name("pipeline.commands.validate"), description=__doc__).parse_args()
    params = load_params()
    if not params.branches:
        raise UserError(
            f"{PARAMS_PATH}: branches: expected at least one, such as\n"
            "  branches: {cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}}"
        )
    return 0


if __name__ == "__main__":
    run_command(main)
