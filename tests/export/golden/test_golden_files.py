"""Export puts golden files beside a real network's engine; they pass where it is sound and catch what is not."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.artifacts.onnx_fp16.export import export as export_fp16
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.checks.verification import run_checks
from export.golden.inputs import CROP, Network, golden_inputs
from export.golden.lab import write_golden
from export.golden.logit_error import ExposedLogits
from serving.contract.files import file_sha256
from serving.contract.manifest import read_sidecar, write_sidecar
from serving.engines.predictor import Predictor
from serving.golden.golden import MAX_BYTES, Golden, golden_folder
from serving.golden.selftest import self_test
from serving.images.geometry import place, restore

LIMITS = {"fp32": 1e-4, "fp16": 2e-3, "bf16": 1e-2}


@pytest.fixture(scope="module")
def network(segmentor, info):
    return Network(segmentor, info)


@pytest.fixture(scope="module")
def inputs(prepared, network):
    return golden_inputs(prepared, network)


def write(engine, inputs, network):
    errors = ExposedLogits(engine, inputs, network)
    assert write_golden(engine, inputs, logit_error=errors)
    return Golden.load(golden_folder(engine))


@pytest.fixture(scope="module")
def written(exported, inputs, network, tmp_path_factory):
    """An engine with golden files. Not to be changed: see `engine`."""
    folder = tmp_path_factory.mktemp("golden") / "engine"
    shutil.copytree(exported.parent, folder)
    write(folder / exported.name, inputs, network)
    return folder / exported.name


@pytest.fixture
def engine(written, tmp_path):
    """A copy of the engine with its golden files, to be damaged."""
    shutil.copytree(written.parent, tmp_path / "engine")
    return tmp_path / "engine" / written.name


@pytest.fixture
def golden(engine):
    return Golden.load(golden_folder(engine))


@pytest.mark.parametrize("damage", ["none", "another engine's", "arrays cut short", "no description"])
def test_golden_files_that_are_not_the_engines_own_fail_its_integrity(damage, engine, examine):
    folder = golden_folder(engine)
    path, arrays = folder / "golden.json", folder / "golden.npz"
    if damage == "another engine's":
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {"engine_sha256": "0" * 64}))
    elif damage == "arrays cut short":
        arrays.write_bytes(arrays.read_bytes()[:-9])
    elif damage == "no description":
        path.unlink()
    with examine(engine) as context:
        (result,) = run_checks(context, ["integrity"])
    words = {"another engine's": "of another engine", "arrays cut short": "was changed", "no description": "no golden"}
    assert result.status == ("pass" if damage == "none" else "fail") and words.get(damage, "agree") in result.detail


def examined(engine, runtime="onnxruntime"):
    with Predictor(engine, runtime=runtime, options={"threads": 1}) as predictor:
        return self_test(predictor)


def sign(engine):
    """Neither the manifest nor the golden files give the changed engine away by a hash."""
    write_sidecar(dataclasses.replace(read_sidecar(engine), sha256=None), engine)
    path = golden_folder(engine) / "golden.json"
    values = json.loads(path.read_text())
    values["engine_sha256"] = file_sha256(engine)
    path.write_text(json.dumps(values))


def test_the_images_are_crops_noise_and_an_odd_size_with_pytorchs_masks_and_margins(inputs, network, reference):
    assert [each.name for each in inputs] == ["crop 1", "crop 2", "noise", "odd"]
    assert [each.mask.shape for each in inputs] == [(90, 125), (90, 125), (64, 64), (61, 93)]
    for each in inputs:
        assert max(each.mask.shape) <= CROP
        placed, placement = place(each.image, stride=network._segmentor.stride)
        logits = reference.logits(placed[None])[0]
        np.testing.assert_array_equal(each.mask, restore(logits.argmax(0), placement))
        top = np.sort(logits, axis=0)[-2:]
        margin = restore(top[1] - top[0], placement)
        np.testing.assert_allclose(each.margin, margin, rtol=1e-3, atol=1e-6)
        assert (each.margin.astype(np.float32) <= margin).all()


def test_the_lab_ran_every_runtime_and_measured_the_logits(engine, golden, network, reference):
    found = {(run.runtime, run.precision): run for run in golden.lab}
    assert {("onnxruntime", "fp32"), ("openvino", "fp32")} <= set(found)
    for run in found.values():
        assert run.max_disagreement == LIMITS[run.precision] and run.largest_logit > 1
        if run.precision == "fp32":
            assert 0 < run.logit_error < 1e-3 * run.largest_logit
            for mask, each in zip(run.masks, golden.inputs, strict=True):
                assert (mask != each.mask).mean() <= run.max_disagreement
        else:  # a CPU with bf16: this network, of random weights, loses half of its largest logit there in PyTorch too
            images = [place(each.image, stride=network._segmentor.stride)[0][None] for each in golden.inputs]
            rounding = max(reference.rounding_error(each, run.precision) for each in images)
            assert 0 < run.logit_error < 2 * rounding * run.largest_logit
    assert found["openvino", "fp32"].layers["fp32"] > 10
    assert golden.engine_sha256 == file_sha256(engine)
    assert sum(path.stat().st_size for path in golden_folder(engine).iterdir()) < MAX_BYTES
    latencies = json.loads((golden_folder(engine) / "latency.json").read_text())
    assert set(latencies) == {f"{run.runtime} {run.precision}" for run in golden.lab}


def test_two_exports_have_the_same_golden_files(engine, golden, inputs, network):
    before = [(golden_folder(engine) / name).read_bytes() for name in ("golden.json", "golden.npz")]
    write(engine, inputs, network)
    assert [(golden_folder(engine) / name).read_bytes() for name in ("golden.json", "golden.npz")] == before


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_engine_passes_where_it_was_made(engine, runtime):
    result = examined(engine, runtime)
    assert result.passed, result.problems
    assert result.compared_with == "PyTorch"


def first_layer(change):
    """Changes the first weights of the graph that belong to a convolution."""

    def damage(model):
        names = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name in names)
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    return damage


def round_all(model):
    """Every weight rounded to eight bits of mantissa, as fast mathematics does to factors."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32)
            rounded = ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


@pytest.mark.parametrize(
    "damage",
    [
        first_layer(lambda weights: weights * np.float32(1.05)),
        first_layer(lambda weights: np.ascontiguousarray(weights[:, ::-1])),  # channels in the wrong order
        first_layer(lambda weights: np.where(np.arange(weights.size).reshape(weights.shape) == 7, 0, weights)),
        round_all,
    ],
    ids=["a layer of 5 % more", "channels exchanged", "one weight of nothing", "rounded to bf16"],
)
def test_damages_are_caught_although_every_hash_is_right(engine, damage):
    model = onnx.load(engine)
    damage(model)
    onnx.save(model, engine)
    sign(engine)
    result = examined(engine)
    assert not result.passed and "no rounding explains it" in result.problems[0]


@pytest.mark.slow
def test_half_precision_is_compared_with_the_lab_engine(segmentor, info, inputs, network, tmp_path):
    engine = export_fp16(segmentor, ExportContext("onnx_fp16", tmp_path, info), OutputOptions())
    write(engine, inputs, network)
    result = examined(engine)
    assert result.passed and result.compared_with == "onnxruntime fp16 in the lab" and result.allowed == 2e-3
