"""The command that gives a branch's final number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.commands import evaluate
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.layout.paths import PREPARED_DIR, stripped_dir
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_segmentor
from pipeline.params import read_yaml
from serving.contract.errors import UserError


@pytest.fixture
def checkout(repository: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    values = read_yaml(repository / "params.yaml")
    values["prepare"] = {"dataset": "folder", "root": str(tiny_root), "options": {"test_fraction": 0.2}}
    values["train"]["device"] = "cpu"
    values["train"]["threads"] = 1
    values["evaluate"] = {"scales": [1.0, 0.5], "flip": True}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(json.dumps(values))
    config = PrepareConfig(dataset="folder", root=str(tiny_root), options={"test_fraction": 0.2})
    prepare(config, PREPARED_DIR)
    info = SegmentorInfo(
        model=ModelConfig(pretrained=False),
        num_classes=3,
        class_names=("floor", "wall", "box"),
        palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
        ignore_index=255,
        provenance={"weights_sha256": "w1"},
    )
    save_segmentor(build_segmentor(info.model, 3, seed=0), info, stripped_dir("cross_entropy", 0))
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate", "--method", "cross_entropy", "--seed", "0", *arguments])
    return evaluate.main()


@pytest.mark.usefixtures("checkout")
def test_val_by_default_with_the_whole_protocol_stated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    result = json.loads(evaluate.result_path("cross_entropy", 0, "val").read_text())
    assert result["images"] == 2
    assert "0.5" in result["protocol"]
    assert "flip" in result["protocol"]
    assert "looks" not in result
    assert set(result["iou_per_class"]) == {"floor", "wall", "box"}
    assert "mIoU" in capsys.readouterr().out
    assert not evaluate.result_path("cross_entropy", 0, "test").exists()


@pytest.mark.usefixtures("checkout")
def test_every_look_at_test_is_recorded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--split", "test")
    assert "was looked at" in capsys.readouterr().err
    path = evaluate.result_path("cross_entropy", 0, "test")
    assert json.loads(path.read_text())["protocol"].startswith("split test, ")
    assert len(json.loads(path.read_text())["looks"]) == 1
    run(monkeypatch, "--split", "test")
    assert len(json.loads(path.read_text())["looks"]) == 1, "the same weights again are the same look"
    description = stripped_dir("cross_entropy", 0) / "segmentor.json"
    description.write_text(description.read_text().replace('"w1"', '"w2"'))
    values = json.loads(Path("params.yaml").read_text())
    values["evaluate"]["split"] = "test"
    Path("params.yaml").write_text(json.dumps(values))
    run(monkeypatch)  # what the section names
    assert [look["weights_sha256"] for look in json.loads(path.read_text())["looks"]] == ["w1", "w2"]


@pytest.mark.usefixtures("checkout")
def test_data_of_other_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = stripped_dir("cross_entropy", 0) / "segmentor.json"
    path.write_text(path.read_text().replace('"wall"', '"fence"'))
    with pytest.raises(UserError, match=r"made for other classes .* \(first difference: 'fence', the data 'wall'\)"):
        run(monkeypatch)
    assert not evaluate.result_path("cross_entropy", 0, "val").exists()
