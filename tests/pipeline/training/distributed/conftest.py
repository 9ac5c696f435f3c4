"""A project in a folder of its own, whose stage `train` runs as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.recipes import merge

BRANCH = "pixel_contrast_bank-s0"
TRAIN = ("-m", "pipeline.stages.train", "--method", "pixel_contrast_bank", "--seed", "0")
TINY: dict[str, Any] = {
    "prepare": {"options": {"train": 8, "val": 3, "test": 0, "height": 64, "width": 96}},
    "model": {"pretrained": False},
    "train": {
        "iterations": 12,
        "batch_size": 4,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "augment": {"crop": [64, 64]},
        "validate_every": 5,
        "checkpoint_every": 2,
    },
}


class Project:
    """A folder with params.yaml and prepared data."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
        self._values = yaml.safe_load((repository / "params.yaml").read_text())
        merge(self._values, TINY)
        self.set(processes=1)
        assert self.run("-m", "pipeline.stages.prepare").returncode == 0

    def set(self, **train: Any) -> None:
        """Change settings of the section `train`."""
        merge(self._values, {"train": train})
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self._values, sort_keys=False))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run python with a command line to its end."""
        with self.started(*command) as process:
            output, errors = process.communicate(timeout=500)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Start python with a command line; at the end of the block nothing of it is left."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def results(self) -> dict[str, bytes]:
        """What a finished training leaves, which is then removed: weights, metrics and curves, by path."""
        places = [f"artifacts/{BRANCH}/trained", f"metrics/train/{BRANCH}.json", f"reports/training/{BRANCH}/plots"]
        found = {}
        for place in places:
            path = self.folder / place
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found[file.relative_to(self.folder).as_posix()] = file.read_bytes()
                    file.unlink()
        return found

    def states(self) -> list[str]:
        """The iterations of which there is a state."""
        return sorted(path.stem for path in (self.folder / f"runs/{BRANCH}").rglob("iteration-*.json"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Project:
    return Project(tmp_path_factory.mktemp("project"), repository)


def children(pid: int) -> list[int]:
    """The processes that a process started and that are there still."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def ranks_of(pid: int) -> list[int]:
    """The ranks that an agent started, the first one first."""
    found = {}
    for child in children(pid):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            values = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(value[5:]): child for value in values if value.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, or the process has ended."""
    pause = threading.Event()
    while not reached() and process.poll() is None:
        pause.wait(0.01)


def end(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)
