"""Tensors of two graphs are paired by what reads them, whatever they are called and whatever stands between."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.checks.locating.matching import match

_SCOPES = "pkg.torch.onnx.name_scopes"


def graph(*nodes, **constants) -> ModelProto:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, None)
    mask = helper.make_tensor_value_info("mask", TensorProto.INT64, None)
    tensors = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [image], [mask], tensors))


def node(operator, inputs, output, scopes=("",)):
    made = helper.make_node(operator, inputs, [output])
    made.metadata_props.add(key=_SCOPES, value=str([*scopes, output]))
    return made


WEIGHTS = {
    "segmentor.stem.weight": np.ones((4, 3, 1, 1), np.float32),
    "segmentor.last.weight": np.ones((2, 4, 1, 1), np.float32),
}
NETWORK = graph(
    node("Conv", ["image", "segmentor.stem.weight"], "first", ("", "segmentor", "segmentor.bn")),
    node("Relu", ["first"], "active", ("", "segmentor", "segmentor.act")),
    node("Conv", ["active", "segmentor.last.weight"], "logits", ("", "segmentor", "segmentor.last")),
    node("ArgMax", ["logits"], "mask"),
    **WEIGHTS,
)


def pairs(shipped: ModelProto) -> list[tuple[str, str, str, tuple[int, ...]]]:
    return [(pair.expected, pair.found, pair.layer, pair.parents) for pair in match(NETWORK, shipped)]


def test_layers_are_called_as_in_the_state_dict():
    assert pairs(NETWORK) == [
        ("first", "first", "stem", ()),
        ("active", "active", "act", (0,)),
        ("logits", "logits", "last", (1,)),
    ]


def test_a_tensor_is_what_the_next_operator_reads():
    """Names changed, three strange nodes after the first layer."""
    shipped = graph(
        helper.make_node("Conv", ["image", "w0"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["d"]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "w1"], ["f"]),
        helper.make_node("ArgMax", ["f"], ["mask"]),
        w0=WEIGHTS["segmentor.stem.weight"],
        w1=WEIGHTS["segmentor.last.weight"],
    )
    assert [(expected, found) for expected, found, _, _ in pairs(shipped)] == [
        ("first", "d"),
        ("active", "e"),
        ("logits", "f"),
    ]


def test_in_int8_the_rounded_tensor_counts_and_an_activation_may_be_left_out():
    scale = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    shipped = graph(
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["image_q"]),
        helper.make_node("DequantizeLinear", ["image_q", "s", "z"], ["image_r"]),
        helper.make_node("DequantizeLinear", ["w0", "s", "z"], ["w0_r"]),
        helper.make_node("Conv", ["image_r", "w0_r"], ["a"]),
        helper.make_node("QuantizeLinear", ["a", "s", "z"], ["a_q"]),
        helper.make_node("DequantizeLinear", ["a_q", "s", "z"], ["a_r"]),
        helper.make_node("Conv", ["a_r", "w1"], ["f"]),
        helper.make_node("ArgMax", ["f"], ["mask"]),
        w0=np.ones((4, 3, 1, 1), np.uint8),
        w1=WEIGHTS["segmentor.last.weight"],
        **scale,
    )
    assert [(expected, found) for expected, found, _, _ in pairs(shipped)] == [("active", "a_r"), ("logits", "f")]


def test_what_is_between_an_int8_layer_and_its_activation_is_not_made_visible():
    shipped = graph(
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["image_q"]),
        helper.make_node("DequantizeLinear", ["image_q", "s", "z"], ["image_r"]),
        helper.make_node("Conv", ["image_r", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["f"]),
        helper.make_node("ArgMax", ["f"], ["mask"]),
        s=np.array(0.1, np.float32),
        z=np.array(0, np.uint8),
        w0=WEIGHTS["segmentor.stem.weight"],
        w1=WEIGHTS["segmentor.last.weight"],
    )
    assert [(expected, found) for expected, found, _, _ in pairs(shipped)] == [("active", "b"), ("logits", "f")]


def test_a_graph_of_something_else_has_no_pairs_beyond_its_output():
    shipped = graph(helper.make_node("ArgMax", ["image"], ["mask"]))
    assert [expected for expected, *_ in pairs(shipped)] == []
