"""Time and memory of the first mask: `python -m serving.infer` in a fresh process, beside the least that could do it.

Every run is a new interpreter, from its start to its exit, with one image. The floor is a bare script: ONNX Runtime and
Pillow, no checks, no options, no geometry. Both take turns, so that a busy moment hits both; medians are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from serving.contract.errors import UserError, run_command

LIMIT_SECONDS, LIMIT_MEGABYTES = 0.5, 200.0

FLOOR = """
import sys
import numpy
import onnxruntime
from PIL import Image
engine, source, target = sys.argv[1:]
image = numpy.asarray(Image.open(source).convert("RGB"))
session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
mask = Image.fromarray(session.run(None, {"image": image[None]})[0][0])
mask.putpalette([value for index in range(256) for value in (index, 255 - index, index)])
mask.save(target)
"""

# On Linux a process inherits the peak memory of the one that started it, whatever it runs then. So a small one does the
# starting: an interpreter without site-packages, which prints status, wall time, CPU time and peak on the last line.
LAUNCHER = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
print()
print(os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)
"""

PICTURE = """
import sys
import numpy
from PIL import Image
height, width = int(sys.argv[2]), int(sys.argv[3])
blocks = numpy.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=numpy.uint8)
Image.fromarray(blocks.repeat(16, 0).repeat(16, 1)).save(sys.argv[1])
"""


@dataclass(frozen=True)
class Run:
    """One process, from its start to its exit.

    Attributes:
        seconds: on the wall.
        cpu_seconds: of all its threads; what a busy machine changes least.
        resident_mb: peak resident memory in MB (10^6 bytes).
        output: what it printed, errors among it.
    """

    seconds: float
    cpu_seconds: float
    resident_mb: float
    output: str = ""


def run_once(command: list[str]) -> Run:
    """Run a command to its end.

    Raises:
        UserError: it failed.
    """
    # An environment that forbids bytecode would have every run compile all of `serving` anew, and the floor nothing.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    launched = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
    )
    output, _, numbers = launched.stdout.decode(errors="replace").rstrip("\n").rpartition("\n")
    status, seconds, cpu_seconds, peak = numbers.split()
    if status != "0":
        raise UserError(f"{' '.join(command[:3])} ended with {status}: {output.strip()[-500:]}")
    return Run(float(seconds), float(cpu_seconds), int(peak) / 1e6, output)


def measure(engine: Path, *, height: int, width: int, runs: int) -> dict[str, object]:
    """Alternate the command and the floor in fresh processes.

    Args:
        engine: an ONNX file with its manifest beside it.
        height: of the image, a multiple of the engine's stride (the floor pads nothing).
        width: as the height.
        runs: of each, after one that is not counted.

    Returns:
        What `--json` prints.
    """
    with tempfile.TemporaryDirectory() as folder:
        picture, results = str(Path(folder, "picture.png")), Path(folder, "masks")
        run_once([sys.executable, "-c", PICTURE, picture, str(height), str(width)])
        commands = {
            "infer": [
                *(sys.executable, "-m", "serving.infer", picture),
                *("--engine", str(engine), "--output", str(results)),
            ],
            "floor": [sys.executable, "-c", FLOOR, str(engine), picture, str(Path(folder, "floor.png"))],
        }
        taken: dict[str, list[Run]] = {name: [] for name in commands}
        for run in range(runs + 1):
            for name, command in commands.items():
                result = run_once(command)
                if run > 0:  # the first one fills the file cache and writes bytecode
                    taken[name].append(result)
    report: dict[str, object] = {
        "engine": str(engine),
        "engine_bytes": engine.stat().st_size,
        "sha256": hashlib.sha256(engine.read_bytes()).hexdigest(),
        "image": [height, width],
        "runs": runs,
        "cpus": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
    }
    for name, done in taken.items():
        report[name] = {
            "seconds": median(run.seconds for run in done),
            "cpu_seconds": median(run.cpu_seconds for run in done),
            "resident_mb": median(run.resident_mb for run in done),
            "all_seconds": [round(run.seconds, 4) for run in done],
        }
    pairs = list(zip(taken["infer"], taken["floor"], strict=True))
    report["seconds_over_floor"] = median(infer.seconds - floor.seconds for infer, floor in pairs)
    report["cpu_seconds_over_floor"] = median(infer.cpu_seconds - floor.cpu_seconds for infer, floor in pairs)
    report["limits"] = {"seconds": LIMIT_SECONDS, "resident_mb": LIMIT_MEGABYTES}
    report["within_limits"] = (
        median(run.seconds for run in taken["infer"]) <= LIMIT_SECONDS
        and median(run.resident_mb for run in taken["infer"]) < LIMIT_MEGABYTES
    )
    return report


def find_engine() -> Path:
    """An exported fp32 engine of this checkout; raises UserError when there is none."""
    engines = sorted(Path("artifacts").glob("*/onnx_fp32/model.onnx"))
    if not engines:
        raise UserError("no artifacts/*/onnx_fp32/model.onnx here: `dvc repro` exports them, or name one with --engine")
    return engines[0]


def main() -> int:
    """The command; returns its exit status: 1 with `--check` when a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_cold", description=__doc__)
    parser.add_argument("--engine", type=Path, help="ONNX file with its manifest (default: the first under artifacts/)")
    parser.add_argument("--height", type=int, default=384)
    parser.add_argument("--width", type=int, default=480)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a limit is passed")
    arguments = parser.parse_args()
    report = measure(
        arguments.engine or find_engine(), height=arguments.height, width=arguments.width, runs=arguments.runs
    )
    if arguments.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        for name in ("infer", "floor"):
            row = report[name]
            assert isinstance(row, dict)
            sys.stdout.write(
                f"{name}: {row['seconds']:.3f} s ({row['cpu_seconds']:.3f} s of CPU), {row['resident_mb']:.0f} MB "
                f"(median of {report['runs']})\n"
            )
    return 1 if arguments.check and not report["within_limits"] else 0


if __name__ == "__main__":
    run_command(main)
