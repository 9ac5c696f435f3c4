"""Where the peers run: an environment of its own for each (`make peers`), so that nothing of them is among ours."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from serving.contract.errors import UserError

ROOT = Path(".peers")
PROGRAMS = Path(__file__).parent / "programs"
OURS_NEEDS = ("numpy", "pillow", "onnxruntime")  # of `contrail-serving[onnxruntime]`


# A process has its parent's peak of memory as its own from the start, so that a small one stands between.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), time.perf_counter() - start, used.ru_maxrss / 1024], file)
"""


@dataclass(frozen=True)
class Done:
    """What a program did: its output, seconds from start to end, and the peak of its resident memory in MB."""

    stdout: str
    stderr: str
    seconds: float
    resident_mb: float

    def answer(self) -> dict[str, float]:
        """The JSON of its last line."""
        found: dict[str, float] = json.loads(self.stdout.splitlines()[-1])
        return found


def run(command: list[str]) -> Done:
    """Run a program on all cores of this process, offline. Raises UserError with its last line when it fails."""
    surroundings = os.environ | {
        "OMP_NUM_THREADS": str(threads()),
        "OMP_WAIT_POLICY": "PASSIVE",
        "YOLO_OFFLINE": "true",
        "YOLO_CONFIG_DIR": str(ROOT.resolve()),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    with tempfile.TemporaryDirectory(prefix="contrail-peers-") as folder:
        told = Path(folder) / "told.json"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, str(told), *command],
            env=surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        status, seconds, resident_mb = json.loads(told.read_text()) if told.exists() else (done.returncode, 0.0, 0.0)
    if status:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise UserError(f"{' '.join(map(str, command[:4]))} ... failed ({status}): {last}")
    return Done(done.stdout, done.stderr, seconds, resident_mb)


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Environment:
    """One environment of `make peers`.

    Attributes:
        name: its folder below `.peers`.
    """

    name: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return ROOT / self.name / "bin" / "python"

    def run(self, program: Path, *words: str | Path) -> Done:
        """Run a program there. Raises UserError where the environment is missing or the program fails."""
        if not self.python.exists():
            raise UserError(f"{self.python}: no such program; `make peers` makes it")
        return run([str(self.python), str(program), *map(str, words)])

    def size_mb(self) -> float:
        """Size of what it holds, PyTorch not counted: the environments share that."""
        return _folder_mb(next((ROOT / self.name / "lib").glob("python*")) / "site-packages")


def ours_mb() -> float:
    """Size of what serving needs: its package and all that it pulls in, in the environment that runs this."""
    wanted, known = list(OURS_NEEDS), set[str]()
    size = _folder_mb(Path("serving"))
    while wanted:
        name = wanted.pop()
        if name in known:
            continue
        known.add(name)
        found = importlib.metadata.distribution(name)
        files = [Path(str(file.locate())) for file in found.files or []]
        size += sum(file.stat().st_size for file in files if file.exists()) / 2**20
        without = [each for each in found.requires or [] if "extra ==" not in each]
        wanted += [re.split(r"[^A-Za-z0-9._-]", each.strip())[0].lower() for each in without]
    return size


def _folder_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sum(path.stat().st_size for path in files) / 2**20


def own(program: str, *words: str | Path) -> Done:
    """Run a program of `programs/` in our environment."""
    return run([sys.executable, str(PROGRAMS / program), *map(str, words)])
