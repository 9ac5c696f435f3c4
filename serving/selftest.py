"""Test on this machine that an engine computes what it computed in the lab, with the golden files beside it.

Exit status: 0 it does; 1 it does not, or cannot be run; 2 the question cannot be put (no such engine, no golden files).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command, shown
from serving.contract.files import why_no_file
from serving.engines.predictor import Predictor
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.golden.golden import Golden, golden_folder
from serving.golden.selftest import lines, self_test


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=program_name("serving.selftest"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="model.onnx or model.plan, golden/ beside it")
    parser.add_argument("--golden", type=Path, metavar="DIR", help="the golden files (default: golden/ beside it)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_runtime_arguments(parser)
    arguments = parser.parse_args(argv)
    why = why_no_file(arguments.engine)
    if why is not None:
        raise UserError(f"{arguments.engine}: {why}")
    options = runtime_options(arguments)
    folder = arguments.golden or golden_folder(arguments.engine)
    golden = Golden.load(folder)
    try:
        with Predictor(arguments.engine, runtime=arguments.runtime, options=options) as predictor:
            result = self_test(predictor, golden, folder=folder)
    except UserError as error:
        problem = " ".join(str(error).split())
        report = {"verdict": "fail", "engine": str(arguments.engine), "problems": [problem]}
        sys.stdout.write(json.dumps(report, indent=2) + "\n" if arguments.json else f"FAIL: {shown(problem)}\n")
        return 1
    text = json.dumps(result.to_json(), indent=2) if arguments.json else "\n".join(map(shown, lines(result)))
    sys.stdout.write(text + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    run_command(main)
