"""Experiments by the real DVC, in a git repository and without a network: `dvc exp run -S` and `--queue`.

DVC rewrites params.yaml for every experiment, so what it wrote is read by our own reader. As in test_dvc.py, a command
that writes new outputs within milliseconds stands in for every stage, except in the test of the real first stages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from pipeline.params import SECTIONS, load_params
from tests.test_dvc import ALWAYS, JUDGED, LOG, ROOT, Project, copy_project, of_branch

# Section -> what is set in it, the place of one value of that in params.yaml, and the value.
OVERRIDES: dict[str, tuple[list[str], str, object]] = {
    "profile": (["profile=release"], "profile", "release"),
    "prepare": (["prepare.options.seed=7"], "prepare.options.seed", 7),
    "model": (["model.head=fcn"], "model.head", "fcn"),
    "train": (["train.optimizer.learning_rate=1.5e-3"], "train.optimizer.learning_rate", 1.5e-3),
    "methods": (["+methods.contextrast.weight=0.3"], "methods.contextrast.weight", 0.3),
    "branches": (
        [
            "+branches.cross_entropy-s1={method: cross_entropy, loss: cross_entropy, seed: 1}",
            "+exports.cross_entropy-s1-onnx_fp32={branch: cross_entropy-s1, artifact: onnx_fp32, kind: onnx_fp32}",
        ],
        "branches.cross_entropy-s1.seed",
        1,
    ),
    "evaluate": (["evaluate.resize=[96,128]"], "evaluate.resize", [96, 128]),
    "artifacts": (["artifacts.onnx_int8_s8.options.images=30"], "artifacts.onnx_int8_s8.options.images", 30),
    "targets": (["targets.ort_fp32.options.threads=2"], "targets.ort_fp32.options.threads", 2),
    "deploy": (["+deploy.everywhere=[ort_fp32]"], "deploy.everywhere", ["ort_fp32"]),
    "exports": (
        ["+exports.contextrast-s0-onnx_fp16={branch: contextrast-s0, artifact: onnx_fp16, kind: onnx_fp16}"],
        "exports.contextrast-s0-onnx_fp16.kind",
        "onnx_fp16",
    ),
    "compiles": (["~compiles.pixel_contrast-s0-tensorrt_fp16", "~targets.tensorrt_fp16"], "compiles", {}),
    "verify": (["+verify.images=3"], "verify.images", 3),
    "benchmark": (["+benchmark.images=4"], "benchmark.images", 4),
    "certify": (["certify.margin=0.03"], "certify.margin", 0.03),
    "gate": (["gate.max_miou_drop_points.fp16=0.1"], "gate.max_miou_drop_points.fp16", 0.1),
}


BRANCH = "strip@pixel_contrast-s0"


def value_at(values: Any, place: str) -> Any:
    for key in place.split("."):
        values = values[key]
    return values


def test_every_section_is_set_below() -> None:
    assert set(OVERRIDES) == {"profile", *SECTIONS}


@pytest.mark.parametrize("section", OVERRIDES)
def test_what_dvc_writes_for_a_section_is_what_was_set(tmp_path: Path, section: str) -> None:
    overrides, place, value = OVERRIDES[section]
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = yaml.safe_load(path.read_text())
    apply_overrides(path, overrides)
    after = yaml.safe_load(path.read_text())
    assert value_at(after, place) == value
    load_params(path)
    touched = {override.lstrip("+~").partition("=")[0].split(".")[0] for override in overrides}
    assert {key for key in before if before[key] != after[key]} == touched


class Experiments(Project):
    """A copy of the project in a git repository of its own, with everything committed."""

    def run(self, *command: str) -> str:
        # `python` is the one that runs this; an identity for commits, since a machine of CI has none.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONPATH", "GIT_"))}
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env=environment | {"PATH": path}
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def start(self) -> None:
        self.append(".gitignore", f"__pycache__/\n/{LOG}\n/reports/\n")
        self.run("git", "init", "--quiet")
        self.run("git", "config", "user.name", "A Tester")
        self.run("git", "config", "user.email", "tester@example.org")
        self.dvc("init", "--quiet")
        self.commit("start")

    def commit(self, subject: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--no-verify", "--message", subject)

    def committed(self, revision: str, name: str) -> Any:
        return yaml.safe_load(self.run("git", "show", f"{self.revision(revision)}:{name}"))

    def revision(self, experiment: str) -> str:
        """What git calls an experiment."""
        found = self.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        return next((name for name in found if name.rpartition("/")[2] == experiment), experiment)

    def queued(self) -> dict[str, Any]:
        """params.yaml of every experiment, by its name; all have succeeded."""
        rows = [line.split() for line in self.dvc("queue", "status").splitlines()[1:] if line.strip()]
        rows = [row for row in rows if row[0] != "Worker"]
        failed = [row[1] for row in rows if row[-1] != "Success"]
        assert rows and not failed, "\n".join(self.dvc("queue", "logs", name) for name in failed)
        names = self.dvc("exp", "list", "--name-only").split()
        return {name: self.committed(name, "params.yaml") for name in names}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Experiments]]:
    folder = tmp_path / "project"

    def do() -> Experiments:
        return Experiments(folder)

    yield do
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def project(make: Callable[[], Experiments]) -> Experiments:
    made = make()
    copy_project(made.folder)
    made.start()
    made.repro()
    made.commit("repro")
    return made


@pytest.mark.slow
def test_all_sections_are_set_in_one_experiment(project: Experiments) -> None:
    """In the workspace. One section alone: of params.yaml above, of the stages in test_dvc.py."""
    (project.folder / LOG).unlink()
    arguments = [each for overrides, _, _ in OVERRIDES.values() for one in overrides for each in ("-S", one)]
    project.dvc("exp", "run", "--name", "all-sections", *arguments)
    values = project.committed("all-sections", "params.yaml")
    assert values == project.params()
    for _, place, value in OVERRIDES.values():
        assert value_at(values, place) == value
    ran = set((project.folder / LOG).read_text().split())
    assert {*ALWAYS, "prepare", *of_branch("contextrast-s0", "onnx_fp32"), *JUDGED} < ran
    assert {"train@cross_entropy-s1", "export@contextrast-s0-onnx_fp16"} < ran
    assert not any(name.startswith("compile@") for name in ran)


@pytest.mark.slow
def test_the_real_stages_run_in_a_queue(make: Callable[[], Experiments]) -> None:
    """A method's setting is swept over, from the dataset to the stripped network, by the commands of dvc.yaml."""
    project = make()
    copy_project(project.folder)
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, project.folder / name)
    values = project.params()
    values["prepare"]["options"] = {"train": 4, "val": 2, "test": 2, "height": 64, "width": 64}
    values["train"] |= {
        "iterations": 2,
        "batch_size": 2,
        "threads": 1,
        "validate_every": 2,
        "augment": {"crop": [64, 64]},
    }
    project.write_params(values)
    project.start()
    project.dvc("exp", "run", "--queue", "-S", "+methods.pixel_contrast.weight=0.2,0.3", "device", BRANCH)
    project.dvc("exp", "run", "--run-all")
    queued = project.queued()
    assert sorted(values["methods"]["pixel_contrast"]["weight"] for values in queued.values()) == [0.2, 0.3]
    for name in queued:
        stages = project.committed(name, "dvc.lock")["stages"]
        assert {"device", "watch", "prepare", "train@pixel_contrast-s0", BRANCH} == set(stages)
        trained = project.committed(name, "metrics/train/pixel_contrast-s0.json")
        assert trained["best_iteration"] == 2
