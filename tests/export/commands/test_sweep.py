"""Sweeps: branches that params.yaml lacks, as an experiment of the real DVC that can be killed and goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from export.commands.sweep import FOLDER, overrides, run_sweep
from pipeline.params import Params, load_params
from serving.contract.errors import UserError
from tests.test_dvc import ROOT, copy_project
from tests.test_dvc_experiments import Experiments

REAL = ("watch", "prepare", "train")  # stages that are run as dvc.yaml says; a stand-in writes the others' outputs
LINE = "{method: pixel_contrast, loss: pixel_contrast, seed: 1}"


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


def test_what_params_lack_is_set_with_the_baseline_and_all_that_targets_need(params: Params) -> None:
    found = overrides(params, ["pixel_contrast"], [0, 1])
    assert found[:2] == [
        "+branches.cross_entropy-s1={method: cross_entropy, loss: cross_entropy, seed: 1}",
        f"+branches.pixel_contrast-s1={LINE}",
    ]
    assert found[2] == (
        "+exports.cross_entropy-s1-onnx_fp32={branch: cross_entropy-s1, artifact: onnx_fp32, kind: onnx_fp32}"
    )
    assert sum(each.startswith("+exports.pixel_contrast-s1-") for each in found) == 4
    assert found[-1].startswith("+compiles.pixel_contrast-s1-tensorrt_fp16=")
    assert overrides(params, ["contextrast", "pixel_contrast"], [0]) == [], "they are there"


def test_everything_that_is_wrong_is_named_at_once(params: Params) -> None:
    with pytest.raises(UserError) as caught:
        overrides(params, ["pixel_contrst", "dice"], [0, -1])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "did you mean 'pixel_contrast'?" in lines[0] and "at least 0, got -1" in lines[2]


def test_only_what_is_committed_is_swept(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    with pytest.raises(UserError, match="not a git repository"):
        run_sweep(tmp_path, ["pixel_contrast"], [0])
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in ("pipeline/new.py", "dvc.lock", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["git", "add", "params.yaml"], cwd=tmp_path, check=True)
    with pytest.raises(UserError, match=r"commit first, or undo, the changes of params\.yaml, pipeline/new\.py$"):
        run_sweep(tmp_path, ["pixel_contrast"], [0])
    assert not (tmp_path / FOLDER).exists()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Experiments]:
    made = Experiments(tmp_path / "project")
    copy_project(made.folder)
    stages = yaml.safe_load((made.folder / "dvc.yaml").read_text())
    real = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages["stages"] |= {name: real[name] for name in REAL}
    (made.folder / "dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False, width=10_000))
    values = made.params()
    values["prepare"]["options"] = {"train": 4, "val": 2, "test": 2, "height": 64, "width": 64}
    values["train"] |= {"iterations": 2, "batch_size": 2, "threads": 1, "validate_every": 2}
    values["train"]["augment"] = {"crop": [64, 64]}
    values["targets"] = {"ort_fp32": values["targets"]["ort_fp32"]}
    values["compiles"] = {}
    for section in ("branches", "exports"):
        kept = {key: each for key, each in values[section].items() if key.startswith(("cross", "pixel_contrast-s0"))}
        values[section] = {key: each for key, each in kept.items() if each.get("kind", "onnx_fp32") == "onnx_fp32"}
    values["exports"] = {key: each for key, each in values["exports"].items() if each["artifact"] == "onnx_fp32"}
    made.write_params(values)
    made.append(".gitignore", "/runs/\n/artifacts/\n/data/\n")
    made.start()
    yield made
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_params_stay_as_they_are(project: Experiments) -> None:
    before = (project.folder / "params.yaml").read_bytes()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}

    def sweep() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "export.commands.sweep", "--methods", "pixel_contrast", "--seeds", "0", "1"],
            cwd=project.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    killed = sweep()
    assert killed.stdout is not None
    for line in killed.stdout:
        if "pixel_contrast-s0: trains on" in line:  # the second of four
            os.killpg(killed.pid, signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    assert (project.folder / "params.yaml").read_bytes() == before
    said, _ = (again := sweep()).communicate()
    assert again.returncode == 0, said
    trained = [branch for branch in ("cross_entropy-s0", "pixel_contrast-s0") if f"{branch}: trains on" in said]
    assert trained == ["pixel_contrast-s0"], "what had finished is not trained again"
    assert (project.folder / "params.yaml").read_bytes() == before
    assert project.run("git", "status", "--porcelain") == ""
    name = said.rstrip().rpartition(" ")[2].rstrip("`")
    assert project.committed(name, "params.yaml")["branches"]["pixel_contrast-s1"] == yaml.safe_load(LINE)
    for branch in ("cross_entropy-s0", "pixel_contrast-s0", "cross_entropy-s1", "pixel_contrast-s1"):
        assert project.committed(name, f"metrics/train/{branch}.json")["best_iteration"] == 2
    done, _ = (third := sweep()).communicate()
    assert third.returncode == 0 and "trains on" not in done, done
