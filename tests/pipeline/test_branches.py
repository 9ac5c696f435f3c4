"""branches.yaml and the source files of stages: what an edit reruns."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import branches, stage_sources
from pipeline.config.params import Params, load_params
from serving.errors import UserError


@pytest.fixture(scope="module")
def params(repository: Path) -> Params:
    return load_params(repository / "params.yaml")


def test_a_branch_depends_on_its_own_loss_and_on_no_other(params: Params, repository: Path) -> None:
    found = branches.branches(params, repository)["branches"]
    contrast = found["pixel_contrast-s0"]["sources"]
    baseline = found["cross_entropy-s0"]["sources"]
    assert "pipeline/losses/pixel_contrast.py" in contrast
    assert "pipeline/losses/info_nce.py" in contrast
    assert not any("contrast" in name or "info_nce" in name for name in baseline)
    assert "pipeline/models/heads/light.py" in baseline
    assert all(len(settings["sources"]) == branches.SLOTS for settings in found.values())
    assert all((repository / name).is_file() for name in contrast + baseline)


def test_curves_of_all_branches_share_a_plot(params: Params, repository: Path) -> None:
    content = branches.branches(params, repository)
    plots = yaml.safe_load((repository / "dvc.yaml").read_text())["plots"]
    drawn = [plot["y"] for entry in plots for plot in entry.values()]
    assert drawn == [f"${{curves.{name}}}" for name in content["curves"]]
    for name, curve in content["curves"].items():
        assert list(curve.values()) == [name] * len(content["branches"])
        folders = [f"artifacts/{branch}/curves/plots/metrics/{name}.tsv" for branch in content["branches"]]
        assert list(curve) == folders


def test_committed_files_are_up_to_date(params: Params, repository: Path) -> None:
    assert (repository / "branches.yaml").read_text() == branches.rendered(params, repository)
    text = (repository / "dvc.yaml").read_text()
    assert stage_sources.rendered(text, repository) == text


def test_every_dependency_exists_and_every_stage_has_its_module(repository: Path) -> None:
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    assert list(stages) == [
        "device",
        "prepare",
        "train",
        "strip",
        "export",
        "compile",
        "verify",
        "benchmark",
        "certify",
        "report",
        "gate",
    ]
    for name, stage in stages.items():
        stage = stage.get("do", stage)
        module = stage_sources.stage_module(stage["cmd"])
        assert module.rpartition(".")[2] == name
        files = [path for path in stage.get("deps", []) if path.endswith(".py")]
        assert all((repository / path).is_file() for path in files)
        if name != "device":
            assert module.replace(".", "/") + ".py" in files


def test_a_stale_file_is_refused(
    params: Params, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(branches, "rendered", lambda *_: "new")
    with pytest.raises(UserError, match="make branches"):
        branches.check_branches(params)
    Path("branches.yaml").write_text("new")
    branches.check_branches(params)
    Path("branches.yaml").write_text("old")
    with pytest.raises(UserError, match="make branches"):
        branches.check_branches(params)


def test_the_command_writes_and_checks(repository: Path, tmp_path: Path) -> None:
    for name in ("pipeline", "serving", "export"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "params.yaml", tmp_path)
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("seeds: [0]", "seeds: [0, 1]"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.branches", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("--check").returncode == 2
    assert run().returncode == 0
    assert run("--check").returncode == 0
    assert "pixel_contrast-s1" in yaml.safe_load((tmp_path / "branches.yaml").read_text())["branches"]


def test_the_quick_check_sees_a_changed_section(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "branches.yaml"):
        shutil.copy(repository / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    branches.check_fresh()
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("margin: 0.02", "margin: 0.03"))
    branches.check_fresh()
    Path("params.yaml").write_text(text.replace("seeds: [0]", "seeds: [1]"))
    with pytest.raises(UserError, match="make branches"):
        branches.check_fresh()
