"""The precision audit: a target whose precision did not happen fails."""

from __future__ import annotations

import dataclasses
import shutil

import onnx
import pytest

from export.artifacts.onnx_fp16.export import export as export_fp16
from export.artifacts.onnx_int8.export import export as export_int8
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.checks.static.precision import check, graph_layers, measured_precision
from serving.contract.manifest import read_sidecar, write_sidecar


def relabel(path, **changes):
    """Change what the manifest says of a file."""
    write_sidecar(dataclasses.replace(read_sidecar(path), sha256=None, **changes), path)


@pytest.fixture(scope="module")
def half(segmentor, info, tmp_path_factory):
    return export_fp16(segmentor, ExportContext("onnx_fp16", tmp_path_factory.mktemp("half"), info), OutputOptions())


def export_quantised(segmentor, info, prepared, folder, scheme):
    context = ExportContext("onnx_int8", folder, info, lambda: prepared)
    options = OnnxInt8Options(scheme=scheme, images=2, held_out=1, max_miou_drop_points=100)
    return export_int8(segmentor, context, options)


@pytest.fixture(scope="module")
def quantised(segmentor, info, prepared, tmp_path_factory):
    """For ONNX Runtime."""
    return export_quantised(segmentor, info, prepared, tmp_path_factory.mktemp("u8"), "asymmetric")


@pytest.fixture(scope="module")
def quantised_around_zero(segmentor, info, prepared, tmp_path_factory):
    """For OpenVINO and TensorRT."""
    return export_quantised(segmentor, info, prepared, tmp_path_factory.mktemp("s8"), "symmetric")


def test_single_precision_passes(exported, examine):
    with examine(exported) as context:
        result = check(context)
        assert (result.status, result.measured) == ("pass", 0.0), result.detail
        assert measured_precision(context) == "fp32"


def test_a_single_precision_graph_called_half_fails(engine, examine):
    relabel(engine, precision="fp16")
    with examine(engine) as context:
        result = check(context)
    assert result.status == "fail" and "asked for fp16; ONNX graph: " in result.detail


def test_a_single_precision_graph_called_int8_fails(engine, examine):
    relabel(engine, precision="int8")
    with examine(engine) as context:
        assert check(context).status == "fail"


def test_a_layer_that_is_executed_in_another_precision_counts_whatever_the_file_says(quantised_around_zero, examine):
    """ONNX Runtime on a CPU has integer kernels for all of the asymmetric graph, for a part of the symmetric one."""
    with examine(quantised_around_zero) as context:
        layers = graph_layers(context.model, 32)
        assert set(layers) == {"int8"}
        result = check(context)
    assert result.status == "fail" and result.measured > 0.2
    assert f"of {layers['int8']} layers" in result.detail and " fp32 of " in result.detail


def test_nodes_that_compute_on_another_provider_fail_the_check(exported, examine, monkeypatch):
    with examine(exported) as context:
        kernels = context.engine._kernels
        # As a CUDA session without a kernel for Resize would have executed it.
        placed = [
            dataclasses.replace(
                kernel,
                provider="CPUExecutionProvider" if kernel.operator == "Upsample" else "CUDAExecutionProvider",
            )
            for kernel in kernels
        ]
        monkeypatch.setattr(context.engine, "_kernels", placed)
        monkeypatch.setattr(context.engine, "_provider", "CUDAExecutionProvider")
        result = check(context)
        assert result.status == "fail" and result.unit == "nodes elsewhere" and result.measured >= 1
        assert "nodes compute elsewhere than asked for: Upsample (" in result.detail
        assert ") on CPUExecutionProvider" in result.detail
        monkeypatch.setattr(
            context.engine, "_kernels", [dataclasses.replace(each, provider="CUDAExecutionProvider") for each in placed]
        )
        assert check(context).status == "pass"


def test_half_passes_and_the_cpu_is_not_said_to_compute_it(half, examine):
    with examine(half) as context:
        result = check(context)
        assert result.status == "pass", result.detail
        assert "computes these in single precision" in result.detail
        assert measured_precision(context) == "fp16 weights, computed in fp32"


def test_int8_passes_until_its_pairs_are_taken_out(quantised, examine, tmp_path):
    with examine(quantised) as context:
        assert check(context).status == "pass" and measured_precision(context) == "int8"
    shutil.copytree(quantised.parent, tmp_path / "damaged")
    path = tmp_path / "damaged" / quantised.name
    model = onnx.load(path)
    pairs = {node.output[0]: node for node in model.graph.node if node.op_type.endswith("antizeLinear")}
    for node in model.graph.node:  # every layer reads its activation from before the pair
        if node.op_type == "Conv" and node.input[0] in pairs:
            before = pairs[node.input[0]].input[0]
            node.input[0] = pairs[before].input[0] if before in pairs else node.input[0]
    path.write_bytes(model.SerializeToString())
    relabel(path)
    with examine(path) as context:
        result = check(context)
    assert result.status == "fail" and result.measured > 0.5


def test_layers_kept_in_float_on_purpose_do_not_count(quantised, examine, tmp_path):
    shutil.copytree(quantised.parent, tmp_path / "kept")
    path = tmp_path / "kept" / quantised.name
    model = onnx.load(path)
    pairs = {node.output[0]: node for node in model.graph.node if node.op_type.endswith("antizeLinear")}
    layers = [node for node in model.graph.node if node.op_type == "Conv" and node.input[0] in pairs]
    kept = layers[: len(layers) // 2]
    for node in kept:
        before = pairs[node.input[0]].input[0]
        node.input[0] = pairs[before].input[0] if before in pairs else node.input[0]
    path.write_bytes(model.SerializeToString())
    relabel(path)
    with examine(path) as context:
        assert check(context).status == "fail"
    details = dict(read_sidecar(path).details)
    details["quantisation"] = dict(details["quantisation"]) | {"kept_in_float": [node.name for node in kept]}
    relabel(path, details=details)
    with examine(path) as context:
        assert check(context).status == "pass"


def test_openvino_is_judged_by_what_it_executes(exported, examine, monkeypatch):
    pytest.importorskip("openvino", reason="openvino is not installed (extra cpu)")
    from serving.engines.runtimes.openvino.engine import OpenVino

    with examine(exported, runtime="openvino", options={"threads": 1}) as context:
        assert context.precision == "fp32"
        result = check(context)
        assert result.status == "pass" and "executed graph of OpenVINO" in result.detail, result.detail
        monkeypatch.setattr(OpenVino, "executed_precisions", lambda self: {"Convolution": {"bf16": 30, "f32": 2}})
        assert check(context).status == "fail"
        assert measured_precision(context) == "bf16"


def test_openvino_executes_int8(quantised_around_zero, examine):
    pytest.importorskip("openvino", reason="openvino is not installed (extra cpu)")
    with examine(quantised_around_zero, runtime="openvino", options={"threads": 1}) as context:
        assert context.precision == "int8"
        result = check(context)
        assert result.status == "pass", result.detail


def test_a_half_file_stays_half_in_openvino_where_the_cpu_computes_it_in_single_precision(half, examine):
    pytest.importorskip("openvino", reason="openvino is not installed (extra cpu)")
    with examine(half, runtime="openvino", options={"threads": 1}) as context:
        assert context.precision == "fp16", "its weights are rounded to that, whatever computes with them"
        result = check(context)
        assert result.status == "pass", result.detail
        lacking = not context.engine.computes_in("fp16")
        assert measured_precision(context) == ("fp16 weights, computed in fp32" if lacking else "fp16")
        assert ("computes these in single precision" in result.detail) == lacking
    with examine(half, runtime="openvino", options={"threads": 1, "precision": "f32"}) as context:
        assert context.precision == "fp32", "asked for, and judged as that"


def test_layers_are_counted_by_the_type_of_their_activation(half, quantised, exported):
    for path, precision in ((half, "fp16"), (quantised, "int8"), (exported, "fp32")):
        counts = graph_layers(onnx.load(path), 32)
        assert counts[precision] >= 0.9 * sum(counts.values()), (precision, counts)


def test_products_of_two_activations_are_no_layers():
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (float[b,h,w,3] image) => (float[b,h,w,3] logits) <float[3,3] weight = {1, 0, 0, 0, 1, 0, 0, 0, 1}>
        {
            features = MatMul(image, weight)
            turned = Transpose<perm=[0, 1, 3, 2]>(features)
            scores = MatMul(features, turned)
            logits = MatMul(scores, features)
        }"""
    )
    assert graph_layers(model, 32) == {"fp32": 1}
