"""The exported file: its contract, what is in it, and that it is the same bytes every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from export.artifacts import ARTIFACT_KINDS
from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.artifacts.shared.single_precision import build_model
from export.checks.examination.images import scene
from export.graph.deploy import DeployGraph
from export.graph.structure import first_difference, structure_sha256, unneeded_nodes, unused_initializers
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import load_segmentor, tensors_sha256
from serving.contract.errors import UserError
from serving.contract.manifest import METADATA_KEY, Manifest, verify_sidecar

SEGMENT = """
import sys
from pathlib import Path
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.onnx_fp32.export import export
from pipeline.models.network.weights import load_segmentor
from export.artifacts.shared.options import OutputOptions
segmentor, info = load_segmentor(Path(sys.argv[1]))
export(segmentor, ExportContext("onnx_fp32", Path(sys.argv[2]), info), OutputOptions())
"""


@pytest.fixture(scope="module")
def model(exported):
    return onnx.load(exported)


def io(values):
    dims = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]
    types = [value.type.tensor_type.elem_type for value in values]
    return list(zip([value.name for value in values], types, dims, strict=True))


def test_bytes_in_and_bytes_out_at_every_size(model):
    assert io(model.graph.input) == [("image", TensorProto.UINT8, ["batch", "height", "width", 3])]
    assert io(model.graph.output) == [("mask", TensorProto.UINT8, ["batch", "height", "width"])]
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_cast_and_normalisation_come_before_the_transposition(model):
    operators = [node.op_type for node in model.graph.node]
    assert operators[:4] == ["Cast", "Sub", "Transpose", "Conv"], "the division is folded into the convolution"


def test_the_graph_holds_the_network_and_nothing_else(model):
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"BatchNormalization", "Shape", "Gather", "Concat", "Constant", "Identity", "Pad", "Div"}
    assert unneeded_nodes(model) == [] and unused_initializers(model) == []
    assert len(model.graph.node) < 160


def test_nothing_in_the_file_tells_of_this_machine(exported, repository):
    content = exported.read_bytes()
    for text in (str(repository), "site-packages", ".py", "stack_trace", torch.__version__, "pkg.torch"):
        assert text.encode() not in content, text


def test_the_manifest_is_inside_and_beside(exported, model, segmentor, info):
    inside = {item.key: item.value for item in model.metadata_props}
    assert list(inside) == [METADATA_KEY]
    embedded = Manifest.from_json(inside[METADATA_KEY])
    beside = verify_sidecar(exported)
    assert embedded.sha256 is None and beside.sha256 is not None
    assert json.loads(embedded.to_json()) == {
        key: value for key, value in json.loads(beside.to_json()).items() if key != "sha256"
    }
    assert beside.class_names == info.class_names and beside.input.stride == segmentor.stride
    assert beside.provenance["weights_sha256"] == tensors_sha256(segmentor.state_dict())
    assert beside.provenance["method"] == "pixel_contrast" and beside.precision == "fp32"
    assert beside.details["structure_sha256"] == structure_sha256(model)


def test_the_file_gives_pytorchs_masks(exported, segmentor):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(5)
    for batch, height, width in [(1, 32, 32), (3, 64, 96)]:
        images = np.stack([scene(height, width, generator) for _ in range(batch)])
        mask = session.run(None, {"image": images})[0]
        with torch.inference_mode():
            expected = DeployGraph(segmentor)(torch.from_numpy(images)).numpy()
        assert np.mean(mask != expected) < 1e-3
        assert len(np.unique(mask)) > 2


def test_exported_again_it_is_the_same_bytes(exported, stripped, tmp_path):
    segmentor, info = load_segmentor(stripped)
    again = export(segmentor, ExportContext("onnx_fp32", tmp_path, info), OutputOptions())
    assert again.read_bytes() == exported.read_bytes()
    assert (tmp_path / "manifest.json").read_bytes() == (exported.parent / "manifest.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_exported_in_another_process_it_is_the_same_bytes(exported, stripped, tmp_path, repository, hash_seed):
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", SEGMENT, str(stripped), str(tmp_path)]
    subprocess.run(command, cwd=repository, env=environment, check=True, timeout=300)
    assert (tmp_path / "model.onnx").read_bytes() == exported.read_bytes()


def test_the_structure_does_not_depend_on_the_values(model, segmentor):
    """A fresh network has zero biases and equal tensors, which the exporter would drop and merge."""
    fresh = build_model(build_segmentor(segmentor.config, segmentor.num_classes, seed=7).eval(), "mask")
    assert first_difference(model, fresh) is None


@pytest.mark.slow
def test_the_confidence_is_a_second_output(segmentor, info, tmp_path):
    path = export(segmentor, ExportContext("with_confidence", tmp_path, info), OutputOptions("mask+confidence"))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = scene(64, 64, np.random.default_rng(5))[None]
    mask, confidence = session.run(None, {"image": images})
    with torch.inference_mode():
        expected_mask, expected = DeployGraph(segmentor, "mask+confidence")(torch.from_numpy(images))
    assert np.mean(mask != expected_mask.numpy()) < 1e-3
    assert np.abs(confidence.astype(int) - expected.numpy().astype(int)).max() <= 1
    assert [output.name for output in verify_sidecar(path).outputs] == ["mask", "confidence"]


def test_a_batch_norm_that_does_not_fold_is_refused(segmentor, model, monkeypatch):
    unfolded = onnx.ModelProto()
    unfolded.CopyFrom(model)
    next(node for node in unfolded.graph.node if node.op_type == "Relu").op_type = "BatchNormalization"
    monkeypatch.setattr("export.artifacts.shared.single_precision.trace", lambda graph: unfolded)
    with pytest.raises(UserError, match="1 batch normalisations remain"):
        build_model(segmentor, "mask")


def test_every_kind_of_artifact_has_options_an_exporter_and_limits():
    for name in ARTIFACT_KINDS:
        kind = ARTIFACT_KINDS.resolve(name)
        assert callable(kind.exporter())
        kind.options()
        assert kind.limits.max_logit_error > 0 and kind.precision in name
