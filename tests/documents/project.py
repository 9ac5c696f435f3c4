"""A scratch copy of the project in which the commands of the documents run, at toy size."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from export.targets.sections import fill_in
from pipeline.recipes import merge
from tests.documents.markdown import ROOT

# What is merged into params.yaml after every recipe (the recipe `smoke` has come first): one target, a few steps on
# small crops, and latencies so brief that nobody may judge them. The commands and the code that they run are real.
TOY: dict[str, Any] = {
    "prepare": {"options": {}},
    "train": {"iterations": 12, "batch_size": 4, "validate_every": 6, "threads": 1, "augment": {"crop": [96, 128]}},
    "evaluate": {"resize": None},
    "targets": {"ort_fp16": None, "openvino_bf16": None},
    "verify": {"images": 2, "max_side": 64, "resamples": 100},
    "benchmark": {
        "batch_sizes": [1],
        "images": 2,
        "quick": {
            "sessions": 2,
            "min_seconds": 0.05,
            "min_queries": 10,
            "pair_seconds": 0.05,
            "min_blocks": 2,
            "throughput_seconds": 0.05,
            "warm_up_seconds": 0.1,
        },
    },
    "certify": {"margin": 0.9, "resamples": 1000},
    "gate": {"max_method_drop_points": None},
}
STREETS = {"train": 16, "val": 6, "test": 6, "height": 96, "width": 128, "seed": 0}
METHODS = ("cross_entropy", "pixel_contrast")  # of params.yaml; recipes bring theirs
CAMVID = "camvid"  # folder of the toy copy of CamVid, beside the project's

_STATE = re.compile(r"(?:export|source|cd) ")


@dataclass
class Project:
    """A copy of the project.

    Attributes:
        root: its folder.
        state: what the commands so far have left behind in their shell: `export`, `source`, `cd`.
    """

    root: Path
    state: list[str] = field(default_factory=list)

    def run(self, command: str, timeout: int = 3000) -> subprocess.CompletedProcess[str]:
        """Run one command of a page in the shell that the page's commands before it have left.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds; it and what it started were ended.
        """
        if _STATE.match(command):
            self.state.append(command)
        script = "\n".join(["set -euo pipefail", *self.state, *([] if command in self.state else [command])])
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, output)

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[str]:
        """Run a command that serves until it is stopped, on a free port; yields `HOST:PORT` once it is ready."""
        with subprocess.Popen(
            ["bash", "-c", f"exec {command} --port 0"],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            said = ""
            for said in process.stderr:
                if '"message": "ready"' in said:
                    break
            assert '"url"' in said, f"{command}: ended before it was ready, with {said}"
            try:
                yield str(json.loads(said)["url"]).removeprefix("http://").rstrip("/")
            finally:
                process.terminate()
                process.stderr.read()
            assert process.wait(60) == 0, command

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands."""
        # MAKE*: under `make test` the commands' own make would think itself a part of it, and print folders.
        inherited = ("CONTRAIL_", "MAKE", "MFLAGS")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(inherited)}
        return environment | {
            "PATH": f"{self.root / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}",
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "DVC_NO_ANALYTICS": "1",
            "COLUMNS": "160",
        }

    @property
    def params(self) -> dict[str, Any]:
        """What is in its params.yaml."""
        values: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text(encoding="utf-8"))
        return values

    def overlay(self, values: Mapping[str, Any]) -> None:
        """Merge values into its params.yaml, and list what its branches export then."""
        params = self.params
        merge(params, values)
        fill_in(params)
        (self.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    def shrink(self) -> None:
        """Make what params.yaml asks for as small as it gets."""
        toy = copy.deepcopy(TOY)
        toy["prepare"]["options"] = STREETS if self.params["prepare"]["dataset"] == "streets" else {}
        # Once: null drops a target that is there, and is no target where it is gone already.
        toy["targets"] = {name: None for name in toy["targets"] if name in self.params["targets"]}
        self.overlay(toy)


def copy_of_tracked_files(folder: Path) -> Path:
    """Everything that git tracks or would (new files as well), with the environment that tests run in as `.venv`.

    Files get an old date: `make` must not find pyproject.toml newer than the environment, and install.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        source = ROOT / name
        if name and source.is_file() and not source.is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
            os.utime(folder / name, (0, 0))
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def toy_project(folder: Path) -> Project:
    """A copy of the project at toy size, a git repository of its own, with the toy copy of CamVid beside it."""
    project = Project(copy_of_tracked_files(folder / "contrail"))
    shrink_recipe(project.root / "recipes" / "camvid-cpu.yaml")  # studies read it by name
    for command in (
        "git init --quiet",
        "git config user.name nobody && git config user.email nobody@example.org",
        "git add --all && git commit --quiet --message toy",
        "python -m export.commands.recipe apply smoke",
    ):
        done = project.run(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
    project.shrink()
    project.overlay(
        {"branches": {key: row for key, row in project.params["branches"].items() if row["method"] in METHODS}}
    )
    write_camvid(folder / CAMVID)
    return project


def shrink_recipe(path: Path) -> None:
    """Make trainings by a recipe as short as those of the toy project."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    merge(values, {"train": TOY["train"]})
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def write_camvid(root: Path) -> None:
    """A few images of noise under blocks of class colours in the layout of the dataset `camvid`."""
    random = np.random.default_rng(0)
    for split, frames in (("train", 16), ("val", 6), ("test", 6)):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for frame in range(frames):
            label = np.kron(random.integers(0, 12, (3, 4)), np.ones((32, 32), int)).astype(np.uint8)
            image = 20 * label[..., None] + random.integers(0, 30, (96, 128, 3))
            name = f"0001TP_{split}_{frame:05}.png"
            Image.fromarray(image.astype(np.uint8)).save(root / split / name)
            Image.fromarray(label).save(root / f"{split}annot" / name)
