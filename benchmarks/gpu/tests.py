"""The tests that need CUDA, and those of what behaves otherwise on a GPU."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "tests/pipeline/losses",
    "tests/pipeline/compute",
    "tests/pipeline/training/performance",
    "tests/serving/engines/runtimes",
)
TOY_PLACES = ("tests/pipeline/compute",)


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Run them.

    Returns:
        Numbers of tests, and the first line of what each failing one said.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:benchmark",  # where pytest-benchmark is installed it warns of xdist, and warnings are errors
            *(["-n", "8"] if importlib.util.find_spec("xdist") and not toy else []),
            f"--junitxml={report}",
        ]
        done = subprocess.run(
            [*command, *(TOY_PLACES if toy else PLACES)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        suite = ElementTree.parse(report).getroot()[0]
    failures = {
        f"{case.get('classname')}.{case.get('name')}": (problem.get("message") or "").partition("\n")[0]
        for case in suite.iter("testcase")
        for problem in [*case.iter("failure"), *case.iter("error")]
    }
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    return {**counts, "exit_status": done.returncode, "failed": failures}
