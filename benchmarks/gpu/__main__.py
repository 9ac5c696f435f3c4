"""`python -m benchmarks.gpu`: run the steps, each in a process of its own, and write what they found into one file.

`--device cpu --toy` runs the same code at toy size, to know that it runs. The file is written anew after every step, so
that what is known stays known if the machine goes away.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contract.errors import UnavailableError, UserError, run_command
from serving.contract.files import write_json

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        module: has `measure(device, *, toy)`, which returns what the file is to say.
        seconds: after which it is ended.
        needs: packages without which it is skipped.
    """

    module: str
    seconds: float
    needs: tuple[str, ...] = ()


# In this order: what is worth most first. Together less than eight minutes.
STEPS = {
    "hardware": Step("benchmarks.gpu.hardware", 10),
    "methods": Step("benchmarks.gpu.methods", 100, ("timm", "safetensors", "rich")),
    "speed": Step("benchmarks.gpu.speed", 90, ("timm",)),
    "precision": Step("benchmarks.gpu.precision", 40, ("timm",)),
    "tests": Step("benchmarks.gpu.tests", 70, ("pytest", "pytest_timeout", "hypothesis")),
    "supply": Step("benchmarks.gpu.supply", 100),
    "runtimes": Step("benchmarks.gpu.runtimes", 70, ("onnx", "onnxscript")),
}
TOY_FACTOR = 4  # a step's time at toy size on two busy cores


def run_step(name: str, device: str, *, toy: bool) -> dict[str, Any]:
    """Run a step in a process of its own.

    Returns:
        `status` (done, skipped, failed, timed out), `seconds`, and `result` or `reason`.
    """
    step = STEPS[name]
    missing = [package for package in step.needs if importlib.util.find_spec(package) is None]
    if missing:
        return {"status": "skipped", "seconds": 0.0, "reason": f"not installed: {', '.join(missing)}"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contrail-gpu-") as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--run", name, "--device", device, "--output", str(output)]
        environment = dict(os.environ)
        if importlib.util.find_spec("dvclive") is None:
            environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), str(HERE / "absent")])
        try:
            done = subprocess.run(
                [*command, *(["--toy"] if toy else [])],
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=step.seconds * (TOY_FACTOR if toy else 1),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"status": "timed out", "seconds": time.monotonic() - started, "reason": f"after {step.seconds} s"}
        seconds = time.monotonic() - started
        if done.returncode or not output.exists():
            tail = done.stderr.strip().splitlines()[-12:] or [f"exit status {done.returncode}"]
            return {"status": "failed", "seconds": seconds, "reason": "\n".join(tail)}
        return {"seconds": seconds, **json.loads(output.read_text(encoding="utf-8"))}


def take_step(name: str, device: str, *, toy: bool) -> dict[str, Any]:
    """A step in this process."""
    try:
        result = importlib.import_module(STEPS[name].module).measure(device, toy=toy)
    except UnavailableError as error:
        return {"status": "skipped", "reason": str(error)}
    return {"status": "done", "result": result}


def main() -> int:
    """Run the steps; 1 where one failed or took too long."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.sh", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="tiny networks and images: does it run?")
    parser.add_argument("--run", choices=list(STEPS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        write_json(arguments.output, take_step(arguments.run, arguments.device, toy=arguments.toy))
        return 0
    if importlib.util.find_spec("torch") is None:
        raise UserError("torch is not installed for this Python; set PYTHON to one that has it")
    found: dict[str, Any] = {"device": arguments.device, "toy": arguments.toy, "steps": {}}
    for name in arguments.steps:
        found["steps"][name] = step = run_step(name, arguments.device, toy=arguments.toy)
        write_json(arguments.output, found)
        why = f": {step['reason']}" if "reason" in step else ""
        sys.stdout.write(f"{name:<10} {step['status']}, {step['seconds']:.0f} s{why}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{arguments.output}\n")
    return int(any(step["status"] in ("failed", "timed out") for step in found["steps"].values()))


if __name__ == "__main__":
    run_command(main)
