"""Imports as tests run them: by the command, or in one process that has loaded datumaro and forks for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.folder.classes import read_classes
from pipeline.data.importing.environment import FOLDER, VARIABLE
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import Preparation, prepare

REPOSITORY = Path(__file__).parents[4]
ENVIRONMENT = Path(os.environ.get(VARIABLE) or REPOSITORY / FOLDER)

needs_formats = pytest.mark.skipif(
    not (ENVIRONMENT / "bin/python").is_file(), reason=f"no environment {ENVIRONMENT}: make formats"
)

# Reads arguments and the names of two files, a line of JSON each time, and answers with the exit status.
_SERVER = """
import json, os, sys
from pipeline.data.importing.convert import main
from serving.contract.errors import run_command
for line in sys.stdin:
    arguments, *files = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream, file in zip((1, 2), files):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["import", *arguments]
        run_command(main)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Importer:
    """The environment of `make formats` with datumaro loaded, which takes a second or two; every import is a fork."""

    def __init__(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
        self._process = subprocess.Popen(
            [str(ENVIRONMENT / "bin/python"), "-P", "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `call`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            said, complained = Path(folder, "stdout"), Path(folder, "stderr")
            self._process.stdin.write(json.dumps([arguments, str(said), str(complained)]) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), status, said.read_text(), complained.read_text())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command itself, in its own process."""
    command = [sys.executable, "-m", "pipeline.commands.import_data", *arguments]
    environment = os.environ | {VARIABLE: str(ENVIRONMENT), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class Imported:
    """What an import made and said."""

    def __init__(self, folder: Path, said: str) -> None:
        self.folder = folder
        self.said = said

    @property
    def classes(self) -> list[str]:
        return [line.name for line in read_classes(self.folder / "classes.txt")]

    def label(self, name: str) -> NDArray[np.uint8]:
        return np.asarray(Image.open(self.folder / f"labels/{name}.png"))

    def where(self, name: str, kind: str) -> NDArray[np.bool_]:
        """The pixels of a class."""
        value = 255 if kind == "void" else self.classes.index(kind)
        return self.label(name) == value

    def prepare(self, output: Path, **options: Any) -> Preparation:
        """Through the stage, as any user's own folder."""
        return prepare(PrepareConfig(dataset="folder", root=str(self.folder), options=options), output)


Run = Callable[..., Imported]
