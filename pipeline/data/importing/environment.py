"""The environment in which exports are read, beside the one that trains."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pipeline
import serving
from serving.contract.errors import UserError, shown

FOLDER = ".formats"
VARIABLE = "CONTRAIL_FORMATS"
_PROGRAM = """
from pipeline.data.importing.convert import main
from serving.contract.errors import run_command
run_command(main)
"""
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def find_python() -> Path:
    """The interpreter of that environment. Raises UserError where there is none."""
    folder = Path(os.environ.get(VARIABLE) or FOLDER)
    for place in ("bin/python", "Scripts/python.exe"):
        if (folder / place).is_file():
            return (folder / place).absolute()
    raise UserError(
        f"{shown(folder)}: missing: exports are read by datumaro in an environment of its own; make it by `make "
        f"formats`, or by `python -m venv {FOLDER}` and `{FOLDER}/bin/pip install --no-deps -r {REQUIREMENTS}`; "
        f"{VARIABLE} names it where it lies elsewhere"
    )


def run_in_environment(arguments: Sequence[str]) -> int:
    """Run the import there; returns its exit status."""
    python = find_python()
    with tempfile.TemporaryDirectory(prefix="contrail-import-") as folder:
        for package in (pipeline, serving):  # these two alone: what is installed here is not for that environment
            (Path(folder) / package.__name__).symlink_to(Path(str(package.__file__)).resolve().parent)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        command = [str(python), "-P", "-c", _PROGRAM, *arguments]
        return subprocess.run(command, env=environment, check=False).returncode
