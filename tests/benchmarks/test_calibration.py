"""What INT8 costs, on a tiny untrained network: every way and scheme, and the search where a limit is set."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import calibration
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_segmentor, tensors_sha256

PREPARE = {"train": 6, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}


@pytest.fixture
def place(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    prepare(PrepareConfig(dataset="streets", options=PREPARE), tmp_path / "data" / "prepared")
    names = json.loads((tmp_path / "data" / "prepared" / "dataset.json").read_text())["class_names"]
    config = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})
    segmentor = build_segmentor(config, len(names), seed=0).eval()
    info = SegmentorInfo(
        model=config,
        num_classes=len(names),
        class_names=tuple(names),
        palette=((0, 0, 0),) * len(names),
        ignore_index=255,
        provenance={"method": "pixel_contrast", "seed": 0, "weights_sha256": tensors_sha256(segmentor.state_dict())},
    )
    save_segmentor(segmentor, info, tmp_path / "artifacts" / "pixel_contrast-s0" / "stripped")
    return tmp_path


@pytest.mark.slow
def test_every_calibration_in_both_schemes(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--images", "2", "--json", "rows.json"])
    assert calibration.main() == 0
    found = json.loads((place / "rows.json").read_text())
    assert [(row["calibration"], row["scheme"]) for row in found["rows"]] == [
        (way, scheme) for way in ("minmax", "percentile", "entropy") for scheme in ("symmetric", "asymmetric")
    ]
    assert all(row["kept"] == 0 < row["layers"] for row in found["rows"]), "without a limit nothing is kept"
    assert all(abs(row[name]) < 100 for row in found["rows"] for name in ("held_out_points", "val_points"))
    assert capsys.readouterr().out.count("| `") == 6


def test_a_limit_keeps_layers(place, monkeypatch):
    arguments = ["--images", "2", "--limit-points", "0", "--calibrations", "minmax", "--schemes", "symmetric"]
    monkeypatch.setattr(sys, "argv", ["x", *arguments, "--json", "rows.json"])
    assert calibration.main() == 0
    (row,) = json.loads((place / "rows.json").read_text())["rows"]
    assert row["kept"] > 0 or row["held_out_points"] <= 0
