"""Costs counted from a graph agree with counts by hand and with PyTorch's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from export.graph.costs import TensorType, costs, infer_types
from serving.contract.errors import UserError


def chain(*nodes: onnx.NodeProto, weights: dict[str, np.ndarray], shape: list[int | str], output: str) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_counts_by_hand():
    model = chain(
        helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["a", "dw"], ["d"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["d", "t"], ["u"], strides=[2, 2]),
        weights={"w": floats(8, 3, 3, 3), "b": floats(8), "dw": floats(8, 1, 3, 3), "t": floats(8, 5, 2, 2)},
        shape=["B", 3, "H", "W"],
        output="u",
    )
    counted = costs(model, (2, 3, 10, 12))
    assert counted.parameters == 216 + 8 + 72 + 160
    assert counted.weight_bytes == 4 * counted.parameters
    positions = 2 * 5 * 6
    assert counted.multiply_adds == positions * (8 * 27 + 8 * 9 + 8 * 5 * 4)
    # image 2*3*10*12 with a; then a with d; then d with u 2*5*10*12
    sizes = {"x": 720, "a": 480, "d": 480, "u": 1200}
    assert counted.peak_activation_bytes == 4 * max(
        sizes["x"] + sizes["a"], sizes["a"] + sizes["d"], sizes["d"] + sizes["u"]
    )
    assert counted.nodes == 3


def test_matrix_products():
    model = chain(
        helper.make_node("MatMul", ["x", "m"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "g"], ["y"], transB=1),
        weights={"m": floats(7, 6), "g": floats(4, 6), "shape": np.array([-1, 6])},
        shape=["B", "N", 7],
        output="y",
    )
    counted = costs(model, (2, 5, 7))
    assert counted.multiply_adds == 10 * 6 * 7 + 10 * 4 * 6
    assert counted.parameters == 42 + 24
    assert counted.weight_bytes == 4 * 66 + 16, "the shape is a constant of the file, not a parameter"


def test_a_residual_stays_alive_until_it_is_added():
    model = chain(
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["y"]),
        weights={},
        shape=["B", 100],
        output="y",
    )
    assert costs(model, (1, 100)).peak_activation_bytes == 3 * 400, "a, b and c together, or a, c and y"


def test_peak_does_not_depend_on_the_order_in_the_file():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Concat", ["x", "x", "x"], ["p"], axis=1),
        helper.make_node("ReduceMean", ["p"], ["q"], keepdims=1),
        helper.make_node("Add", ["b", "q"], ["y"]),
    ]
    orders = ([0, 1, 2, 3, 4], [2, 0, 3, 1, 4], [2, 3, 0, 1, 4])
    peaks = {
        costs(chain(*(nodes[i] for i in order), weights={}, shape=["B", 50], output="y"), (1, 50)).peak_activation_bytes
        for order in orders
    }
    assert len(peaks) == 1


def test_shapes_that_the_graph_computes_are_followed():
    model = chain(
        helper.make_node("Shape", ["x"], ["s"], start=2),
        helper.make_node("Constant", [], ["two"], value_ints=[2, 2]),
        helper.make_node("Mul", ["s", "two"], ["s2"]),
        helper.make_node("Shape", ["x"], ["s0"], start=0, end=2),
        helper.make_node("Concat", ["s0", "s2"], ["size"], axis=0),
        helper.make_node("Resize", ["x", "", "", "size"], ["big"], mode="linear"),
        helper.make_node("ReduceProd", ["size"], ["total"], keepdims=0),
        helper.make_node("Unsqueeze", ["total", "zero"], ["all"]),
        helper.make_node("Reshape", ["big", "all"], ["flat"]),
        weights={"zero": np.array([0])},
        shape=["B", "C", "H", "W"],
        output="flat",
    )
    types = infer_types(model, (1, 3, 5, 7))
    assert types["big"] == TensorType(TensorProto.FLOAT, (1, 3, 10, 14))
    assert types["flat"] == TensorType(TensorProto.FLOAT, (420,))
    assert costs(model, (1, 3, 5, 7)).nodes == 8


def test_a_shape_that_does_not_fit_is_refused():
    model = chain(helper.make_node("Relu", ["x"], ["y"]), weights={}, shape=["B", 3, "H", "W"], output="y")
    for shape in [(1, 4, 8, 8), (1, 3, 8), {"z": (1, 3, 8, 8)}]:
        with pytest.raises(UserError, match=r"input 'x' has shape \['B', 3, 'H', 'W'\]"):
            costs(model, shape)


def test_an_operator_of_unknown_shape_is_named():
    model = chain(helper.make_node("Secret", ["x"], ["y"], domain="elsewhere"), weights={}, shape=["B", 3], output="y")
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(UserError, match="such as 'y'"):
        costs(model, (1, 3))


def test_the_exported_network_counts_as_pytorch_does(exported, segmentor):
    height, width = 2 * segmentor.stride, 3 * segmentor.stride
    counted = costs(onnx.load(exported), (1, height, width, 3))
    images = torch.zeros(1, 3, height, width)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        segmentor(images)
    assert counted.multiply_adds == counter.get_total_flops() // 2
    norms = sum(module.weight.numel() for module in segmentor.modules() if isinstance(module, torch.nn.BatchNorm2d))
    parameters = sum(parameter.numel() for parameter in segmentor.parameters())
    # Folding leaves one bias where a norm had weight and bias; the graph adds its mean, scalars of activations aside.
    assert parameters - norms <= counted.parameters <= parameters - norms + 16
    assert counted.weight_bytes < exported.stat().st_size < counted.weight_bytes + 60_000
