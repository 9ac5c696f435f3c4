"""INT8 files: two schemes, calibrated on training images, the worst layers kept in float."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from export.artifacts.onnx_int8.calibration import choose
from export.artifacts.onnx_int8.export import export
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.quantisation import LAYERS, Quantiser
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.single_precision import build_model
from export.checks.examination.images import scene
from export.checks.static.structure import structure_problems
from serving.contract.errors import UserError
from serving.contract.manifest import verify_sidecar

FEW = {"images": 3, "held_out": 2, "probes": 1}


@pytest.fixture(scope="module")
def make(segmentor, info, prepared, tmp_path_factory):
    def make(name="onnx_int8", **options):
        context = ExportContext(name, tmp_path_factory.mktemp(name), info, lambda: prepared)
        return export(segmentor, context, OnnxInt8Options(**(FEW | {"max_miou_drop_points": 100} | options)))

    return make


@pytest.fixture(scope="module")
def paths(make):
    # reduce_range: on a CPU without VNNI the sums of S8 x S8 would saturate, and the masks be another matter.
    symmetric = make("onnx_int8_symmetric", scheme="symmetric", reduce_range=True)
    return {"symmetric": symmetric, "asymmetric": make("onnx_int8_asymmetric", scheme="asymmetric")}


def quantised_inputs(model):
    """Layer -> (types of activation and weight before their DequantizeLinear, how the bias comes)."""
    producers = {name: node for node in model.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in LAYERS:
            continue
        feeding = [producers.get(name) for name in node.input]
        if any(each is None or each.op_type != "DequantizeLinear" for each in feeding[:2]):
            continue
        zero_points = [tensors[each.input[2]] for each in feeding[:2]]
        bias = feeding[2].op_type if len(feeding) > 2 and feeding[2] is not None else "float"
        found[node.name] = ([tensor.data_type for tensor in zero_points], zero_points, bias)
    return found


def test_symmetric_is_s8_around_zero_without_quantised_bias(paths):
    model = onnx.load(paths["symmetric"])
    layers = quantised_inputs(model)
    assert len(layers) >= 0.9 * sum(node.op_type in LAYERS for node in model.graph.node)
    for types, zero_points, bias in layers.values():
        assert types == [TensorProto.INT8, TensorProto.INT8] and bias == "float"
        assert all(not numpy_helper.to_array(tensor).any() for tensor in zero_points)


def test_asymmetric_is_u8_with_quantised_bias(paths):
    layers = quantised_inputs(onnx.load(paths["asymmetric"]))
    assert layers
    for types, _, bias in layers.values():
        assert types == [TensorProto.UINT8, TensorProto.INT8] and bias == "DequantizeLinear"


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_the_file_is_clean_and_keeps_the_contract(paths, scheme, exported):
    model = onnx.load(paths[scheme])
    assert structure_problems(model) == []
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert paths[scheme].stat().st_size < 0.45 * exported.stat().st_size
    tail = [node.op_type for node in model.graph.node][-3:]
    assert tail == ["Resize", "ArgMax", "Cast"], "logits are upsampled in float: no ties for argmax"


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_masks_mostly_agree_with_the_float_file(paths, scheme, exported):
    image = scene(96, 128, np.random.default_rng(9))[None]
    masks = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": image})[0]
        for path in (paths[scheme], exported)
    ]
    assert np.mean(masks[0] == masks[1]) > 0.7


def test_the_manifest_tells_what_was_done(paths, prepared):
    manifest = verify_sidecar(paths["symmetric"])
    details = manifest.details["quantisation"]
    assert manifest.precision == "int8" and details["scheme"] == "symmetric" and details["kept_in_float"] == []
    assert details["images"]["calibration"]["images"] == 3 and details["images"]["held_out"]["images"] == 2
    assert set(details["images"]["asked"]) == {"calibration", "held_out"}
    assert details["images"]["split"] == "train" and details["images"]["not_in"] == ["val", "test"]


def test_exported_again_it_is_the_same_bytes(paths, make):
    assert (
        make("onnx_int8_symmetric", scheme="symmetric", reduce_range=True).read_bytes()
        == paths["symmetric"].read_bytes()
    )


@pytest.mark.parametrize("method", ["percentile", pytest.param("entropy", marks=pytest.mark.slow)])
def test_ranges_by_other_methods_cut_outliers(segmentor, prepared, method, capsys):
    reference = build_model(segmentor, "mask")
    images = choose(prepared, calibration=2, held_out=1, seed=0, stride=segmentor.stride, resize=None)
    scales = {}
    for calibration in ("minmax", method):
        options = OnnxInt8Options(calibration=calibration, percentile=99.0)
        with Quantiser(reference, images, options) as quantiser:
            model = quantiser.quantise()
        scales[calibration] = {
            tensor.name: float(numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer
            if tensor.name.endswith("_scale") and not tensor.dims
        }
    shared = scales["minmax"].keys() & scales[method].keys()
    smaller = sum(scales[method][name] < 0.999 * scales["minmax"][name] for name in shared)
    assert smaller > len(shared) / 3
    assert capsys.readouterr().out == ""


def test_without_a_dataset_the_export_says_what_to_run(segmentor, info, tmp_path):
    with pytest.raises(UserError, match="run `prepare` first"):
        export(segmentor, ExportContext("onnx_int8", tmp_path, info), OnnxInt8Options())


def test_bad_options_are_refused_together():
    with pytest.raises(ValueError, match=r"images: .*\n.*percentile: "):
        OnnxInt8Options(images=0, percentile=20)
