"""Profiles of ONNX Runtime: what a kernel is, which compute, and where."""

import json

import pytest

from serving.engines.runtimes.onnxruntime.kernels import computed_elsewhere, layers_by_precision, read_profile

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def event(name, operator, provider, inputs, outputs, *, suffix="_kernel_time", category="Node", parameters=None):
    arguments = {"op_name": operator, "provider": provider}
    if parameters is not None:
        arguments["parameter_size"] = str(parameters)
    arguments |= {"input_type_shape": inputs, "output_type_shape": outputs}
    return {"cat": category, "name": name + suffix, "args": arguments, "dur": 5, "ts": 1}


FEATURES = {"float16": [1, 64, 32, 48]}


@pytest.fixture
def profile(tmp_path):
    def read(*events):
        path = tmp_path / "profile.json"
        path.write_text(json.dumps([*events, {"cat": "Session", "name": "model_run", "args": {}, "dur": 1}]))
        return read_profile(path)

    return read


def test_kernels_are_read_in_their_order_and_nothing_else(profile):
    kernels = profile(
        event("first", "Conv", CUDA, [FEATURES, {"float16": [64, 64, 1, 1]}], [FEATURES]),
        event("first", "Conv", CUDA, [FEATURES], [FEATURES], suffix="_fence_before"),
        event("gpu", "Conv", CUDA, [FEATURES], [FEATURES], category="Kernel"),
        event("second", "QLinearConv", CUDA, [{"uint8": [1, 8, 4, 4]}], [{"uint8": [1, 8, 4, 4]}]),
        event("third", "Gemm", CUDA, [{"float": [1, 8]}], [{"float": [1, 9]}]),
        event("fourth", "Relu", CUDA, [FEATURES], [FEATURES]),
        event("fifth", "Range", CUDA, [], []),
    )
    assert [kernel.name for kernel in kernels] == ["first", "second", "third", "fourth", "fifth"]
    assert layers_by_precision(kernels) == {"fp16": 1, "int8": 1, "fp32": 1}
    assert computed_elsewhere(kernels, CUDA) == []


def test_products_of_two_activations_are_no_layers(profile):
    """Where the library tells: a packed weight is no input any more, another counts as a parameter."""
    kernels = profile(
        event("packed", "MatMul", CPU, [FEATURES], [FEATURES], parameters=0),
        event("weight", "MatMul", CUDA, [FEATURES, FEATURES], [FEATURES], parameters=4096),
        event("scores", "FusedMatMul", CPU, [FEATURES, FEATURES], [FEATURES], parameters=0),
    )
    assert layers_by_precision(kernels) == {"fp16": 2}


@pytest.mark.parametrize(
    ("operator", "inputs", "outputs", "computes"),
    [
        ("Resize", [FEATURES, {"int64": [4]}], [FEATURES], True),
        ("ArgMax", [FEATURES], [{"int64": [1, 32, 48]}], True),
        ("Conv", [{"float": [1, 16, 1, 1]}], [{"float": [1, 8, 1, 1]}], True),  # behind a global average
        ("ConstantOfShape", [{"int64": [4]}], [FEATURES], True),
        ("Shape", [FEATURES], [{"int64": [4]}], False),
        ("Size", [FEATURES], [{"int64": []}], False),
        ("Gather", [{"int64": [4]}, {"int64": []}], [{"int64": []}], False),
        ("Concat", [{"int64": [2]}, {"int64": [2]}], [{"int64": [4]}], False),
        ("Cast", [{"int64": [4]}], [{"float": [4]}], False),
    ],
)
def test_work_on_features_elsewhere_is_told_from_arithmetic_on_shapes(profile, operator, inputs, outputs, computes):
    kernels = profile(event("node", operator, CPU, inputs, outputs), event("rest", "Relu", CUDA, [FEATURES], []))
    assert computed_elsewhere(kernels, CUDA) == ([f"{operator} (node) on {CPU}"] if computes else [])
    assert len(computed_elsewhere(kernels, CPU)) == 1
