"""Two quantisers on a tiny untrained network, in both runtimes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks.quantisers import __main__ as quantisers
from benchmarks.quantisers.nncf_quantiser import NncfOptions, quantise
from export.artifacts.onnx_int8.calibration import choose
from export.artifacts.shared.single_precision import build_model
from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_segmentor, tensors_sha256
from serving.contract.errors import UserError

PREPARE = {"train": 6, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}
CONFIG = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})


@pytest.fixture
def place(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((repository / "params.yaml").read_bytes())
    prepare(PrepareConfig(dataset="streets", options=PREPARE), tmp_path / "data" / "prepared")
    names = json.loads((tmp_path / "data" / "prepared" / "dataset.json").read_text())["class_names"]
    segmentor = build_segmentor(CONFIG, len(names), seed=0).eval()
    weights = tensors_sha256(segmentor.state_dict())
    provenance = {"method": "pixel_contrast", "seed": 0, "weights_sha256": weights}
    info = SegmentorInfo(CONFIG, len(names), tuple(names), ((0, 0, 0),) * len(names), 255, provenance=provenance)
    save_segmentor(segmentor, info, tmp_path / "artifacts" / "pixel_contrast-s0" / "stripped")
    return tmp_path


def test_without_nncf_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(UserError, match=r"^NNCF is not installed .*pip install .*nncf==\d") as raised:
        quantisers.main()
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_our_own_ways_need_no_nncf(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nncf", None)
    ways = ["ort_symmetric", "ort_asymmetric_7bit"]
    monkeypatch.setattr(sys, "argv", ["x", "--images", "2", "--rounds", "1", "--json", "rows.json", "--ways", *ways])
    assert quantisers.main() == 0
    rows = json.loads((place / "rows.json").read_text())["rows"]
    assert [row["way"] for row in rows] == ["fp32", "fp32", "ort_symmetric", "ort_symmetric", *[ways[1]] * 2]
    assert all(0 <= row["miou"] <= 1 and row["median_ms"] > 0 < row["over_fp32"] for row in rows)
    assert rows[0]["miou"] == pytest.approx(rows[1]["miou"], abs=1e-3), "both runtimes compute the same network"
    assert capsys.readouterr().out.count("| `") == 6


@pytest.mark.slow
def test_nncf_quantises_the_layers_of_our_graph_and_leaves_the_original(place):
    pytest.importorskip("nncf")
    prepared = load_prepared(place / "data" / "prepared", None)
    segmentor = build_segmentor(CONFIG, prepared.num_classes, seed=0).eval()
    reference = build_model(segmentor, "mask")
    before = reference.SerializeToString(deterministic=True)
    images = choose(prepared, calibration=2, held_out=2, seed=0, stride=segmentor.stride, resize=None)
    found = quantise(reference, images, NncfOptions())
    assert reference.SerializeToString(deterministic=True) == before
    made = {name: node.op_type for node in found.graph.node for name in node.output}
    layers = [node for node in found.graph.node if node.op_type == "Conv"]
    assert layers and all(made.get(node.input[1]) == "DequantizeLinear" for node in layers), "every weight"
    inputs = [made.get(node.input[0]) == "DequantizeLinear" for node in layers]
    assert np.mean(inputs) > 0.9, "it leaves the image's own values in single precision"
