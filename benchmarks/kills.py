"""`python -m benchmarks.kills [--runs 20] [--dvc] [--json]`: SIGKILL at random moments; are the final bytes the same?

A toy training of each method runs once without interruption. Then, for every run, the same training is killed with all
its processes at a random moment, started again by the same command, killed again, and so on `--kills` times before it
may finish. Weights, curves and metrics must equal those of the training that nobody interrupted, byte for byte. With
`--dvc` the command is `dvc repro`, in a project of its own with the real code and dvc.yaml.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.layout.branches import branch_name
from serving.contract.errors import UserError, run_command

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("cross_entropy", "pixel_contrast_bank", "contextrast")
WEIGHTS = ("best.safetensors", "last.safetensors", "trainee.json")
TOY: dict[str, Any] = {
    "prepare": {"dataset": "streets", "options": {"train": 8, "val": 3, "test": 0, "height": 64, "width": 96}},
    "train": {
        "iterations": 16,
        "batch_size": 2,
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "validate_every": 5,
        "checkpoint_every": 2,
        "augment": {"crop": [64, 64]},
    },
    "model": {"backbone": "tf_efficientnet_lite0", "pretrained": False, "head": "light"},
}
SECONDS = 600.0  # that one call may take


class Toy:
    """A project of its own, with the code of this one, that trains one branch of each method.

    Args:
        folder: new, or empty.
        dvc: whether DVC runs the stages.
    """

    def __init__(self, folder: Path, *, dvc: bool) -> None:
        self.folder = folder
        self._dvc = dvc
        folder.mkdir(parents=True, exist_ok=True)
        for room in ("pipeline", "serving", "export"):
            shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        params = {**yaml.safe_load((ROOT / "params.yaml").read_text()), **TOY}
        losses = {method: params["methods"][method]["loss"] for method in METHODS}
        params["branches"] = {
            branch_name(method, 0): {"method": method, "loss": loss, "seed": 0} for method, loss in losses.items()
        }
        exports = {f"{branch}-onnx_fp32": branch for branch in params["branches"]}
        params |= {
            "targets": {"ort_fp32": params["targets"]["ort_fp32"]},
            "deploy": {"method": METHODS[-1]},
            "exports": {
                name: {"branch": branch, "artifact": "onnx_fp32", "kind": "onnx_fp32"}
                for name, branch in exports.items()
            },
            "compiles": {},
        }
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
        kept = {name: stages[name] for name in ("watch", "prepare", "train")}
        (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": kept}, sort_keys=False, width=10_000))
        if dvc:
            self._finish([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"])
            self._finish([sys.executable, "-m", "dvc", "repro", "--quiet", "prepare"])
        else:
            self._finish([sys.executable, "-m", "pipeline.stages.prepare"])

    def command(self, method: str) -> list[str]:
        """What trains a branch."""
        if self._dvc:
            return [sys.executable, "-m", "dvc", "repro", "--single-item", f"train@{branch_name(method, 0)}"]
        return [sys.executable, "-m", "pipeline.stages.train", "--branch", branch_name(method, 0)]

    def train(self, method: str, *, kill_after: float | None = None) -> float | None:
        """Start the training, and kill it with all its processes `kill_after` seconds after it got to its branch.

        Returns:
            Seconds from there to the end, or None where it was killed.

        Raises:
            UserError: it failed.
        """
        lock = self.folder / "runs" / branch_name(method, 0) / "checkpoints/lock"
        lock.unlink(missing_ok=True)
        with tempfile.TemporaryFile("w+") as shown:
            process = subprocess.Popen(
                self.command(method),
                cwd=self.folder,
                env=self._environment(),
                stdout=shown,
                stderr=shown,
                start_new_session=True,
            )
            begun = None
            started = time.monotonic()
            while process.poll() is None:
                now = time.monotonic()
                if begun is None and lock.exists():
                    begun = now
                killing = begun is not None and kill_after is not None and now - begun >= kill_after
                if killing or now - started > SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    if killing:
                        return None
                time.sleep(0.002)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # nothing of it stays
            if process.returncode != 0 or begun is None:
                shown.seek(0)
                raise UserError(f"{' '.join(self.command(method))} failed:\n{shown.read()[-2000:]}")
            return time.monotonic() - begun

    def results(self, method: str) -> dict[str, bytes]:
        """Everything that a training leaves which must not depend on interruptions, by path."""
        branch = branch_name(method, 0)
        curves = f"reports/training/{branch}/plots/metrics"
        files = [f"artifacts/{branch}/trained/{name}" for name in WEIGHTS] + [f"metrics/train/{branch}.json"]
        files += [f"{curves}/{path.name}" for path in sorted((self.folder / curves).iterdir())]
        return {name: (self.folder / name).read_bytes() for name in files}

    def forget(self, method: str) -> None:
        """Remove all that the training of a branch left."""
        branch = branch_name(method, 0)
        for name in (f"runs/{branch}", f"artifacts/{branch}", f"reports/training/{branch}"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / f"metrics/train/{branch}.json").unlink(missing_ok=True)
        if self._dvc:  # as if it had never run: else DVC takes the results from its cache of runs
            (self.folder / "dvc.lock").unlink(missing_ok=True)
            shutil.rmtree(self.folder / ".dvc/cache/runs", ignore_errors=True)

    def _finish(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            raise UserError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**os.environ, "PATH": path, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}


def measure(folder: Path, *, runs: int, kills: int, dvc: bool, methods: Sequence[str], seed: int) -> dict[str, Any]:
    """Kill trainings, and compare what they end with.

    Args:
        folder: for the project; new.
        runs: trainings that are interrupted, the methods in turn.
        kills: of each training.
        dvc: whether DVC runs them.
        methods: of `METHODS`.
        seed: of the moments.

    Returns:
        `runs`, `identical` (of them), `kills` and `resumes` in all, and `different` (the files, by run).
    """
    moments = random.Random(seed)
    toy = Toy(folder, dvc=dvc)
    expected, seconds = {}, {}
    for method in methods:
        duration = toy.train(method)
        assert duration is not None
        expected[method], seconds[method] = toy.results(method), duration
    killed = 0
    different: dict[str, list[str]] = {}
    for run in range(runs):
        method = methods[run % len(methods)]
        toy.forget(method)
        left = kills
        while left:
            duration = toy.train(method, kill_after=moments.uniform(0, seconds[method]))
            if duration is None:
                killed, left = killed + 1, left - 1
            else:  # it was faster this time: nothing was interrupted
                seconds[method] = min(duration, seconds[method])
                toy.forget(method)
        toy.train(method)
        found = toy.results(method)
        names = sorted(found.keys() | expected[method].keys())
        wrong = [name for name in names if found.get(name) != expected[method].get(name)]
        if wrong:
            different[f"{run}: {method}"] = wrong
    return {"runs": runs, "identical": runs - len(different), "kills": killed, "dvc": dvc, "different": different}


def main() -> int:
    """Measure and print; status 1 where a run ended differently."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="trainings that are interrupted")
    parser.add_argument("--kills", type=int, default=2, help="of each training before it may finish")
    parser.add_argument("--dvc", action="store_true", help="dvc repro instead of the stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="contrail-kills-") as folder:
        result = measure(
            Path(folder) / "project",
            runs=arguments.runs,
            kills=arguments.kills,
            dvc=arguments.dvc,
            methods=METHODS,
            seed=arguments.seed,
        )
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        sys.stdout.write(f"{result['identical']} of {result['runs']} bit-identical after {result['kills']} kills\n")
        for run, names in result["different"].items():
            sys.stdout.write(f"  {run}: {', '.join(names)}\n")
    return 0 if result["identical"] == result["runs"] else 1


if __name__ == "__main__":
    run_command(main)
