"""How often the self-test calls a sound engine wrong, and how long it takes: many runs over the CPU's runtimes.

Every run opens the engine anew, as a device does when it starts. `python -m benchmarks.selftests [ENGINE ...]`; without
an engine, all of artifacts/ that have golden files beside them. Exit status 1 where a run did not pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

from serving.contract.errors import UserError, run_command
from serving.engines.predictor import Predictor
from serving.golden.golden import golden_folder
from serving.golden.selftest import self_test

RUNTIMES = ("onnxruntime", "openvino")


def false_alarms(engines: Sequence[Path], *, runs: int, threads: int) -> dict[str, Any]:
    """Test sound engines in turn, each in every runtime of the CPU.

    Args:
        engines: ONNX files with their golden files beside them.
        runs: in all.
        threads: of the engine.

    Returns:
        `runs`, `alarms` (engine, runtime and problems of every run that did not pass), and by engine and runtime the
        `runs`, the median `seconds` of a self-test and the `disagreements` seen.
    """
    found: dict[str, Any] = {"runs": runs, "threads": threads, "alarms": [], "targets": {}}
    targets = [(engine, runtime) for engine in engines for runtime in RUNTIMES]
    taken: dict[str, list[float]] = {}
    for engine, runtime in islice(cycle(targets), runs):
        with Predictor(engine, runtime=runtime, options={"threads": threads}) as predictor:
            start = time.perf_counter()
            result = self_test(predictor)
            name = f"{engine} {runtime}"
            taken.setdefault(name, []).append(time.perf_counter() - start)
        target = found["targets"].setdefault(name, {"precision": result.precision, "disagreements": []})
        target["disagreements"] = sorted({*target["disagreements"], result.disagreement})
        if not result.passed:
            found["alarms"].append({"engine": str(engine), "runtime": runtime, "problems": result.problems})
    for name, seconds in taken.items():
        found["targets"][name] |= {"runs": len(seconds), "seconds": median(seconds)}
    return found


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.selftests", description=__doc__)
    parser.add_argument("engines", nargs="*", type=Path, metavar="ENGINE")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    engines = arguments.engines or sorted(
        path for path in Path("artifacts").glob("*/*/model.onnx") if golden_folder(path).is_dir()
    )
    if not engines:
        raise UserError("no engine with golden files in artifacts/; run `dvc repro`, or name one")
    found = false_alarms(engines, runs=arguments.runs, threads=arguments.threads)
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for name, target in found["targets"].items():
            sys.stdout.write(f"{name}: {target['runs']} runs, {target['seconds']:.2f} s each\n")
        for alarm in found["alarms"]:
            sys.stdout.write(f"{alarm['engine']} {alarm['runtime']}: {'; '.join(alarm['problems'])}\n")
        sys.stdout.write(f"{len(found['alarms'])} alarms in {found['runs']} runs\n")
    return 1 if found["alarms"] else 0


if __name__ == "__main__":
    run_command(main)
