"""Layers in floating point are in floating point: with what follows them, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from export.artifacts.onnx_int8.calibration import choose
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.quantisation import Quantiser, _groups, session
from export.artifacts.shared.single_precision import build_model
from export.checks.examination.images import scene


@pytest.fixture(scope="module")
def reference(segmentor):
    return build_model(segmentor, "mask")


@pytest.fixture(scope="module", params=["symmetric", "asymmetric"])
def quantiser(reference, segmentor, prepared, request):
    images = choose(prepared, calibration=2, held_out=1, seed=0, stride=segmentor.stride, resize=None)
    with Quantiser(reference, images, OnnxInt8Options(scheme=request.param)) as quantiser:
        yield quantiser


def quantised_tensors(model):
    """Activations that pass through INT8."""
    return {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def test_only_what_touches_the_one_layer_left_is_quantised(quantiser, reference):
    layer = quantiser.layers[-1]
    node = next(node for node in reference.graph.node if node.name == layer)
    model = quantiser.quantise(quantiser.layers[:-1])
    assert quantised_tensors(model) == {node.input[0], node.output[0]}
    assert [each.name for each in quantiser.quantise_only([layer]).graph.node] == [
        each.name for each in model.graph.node
    ]


def test_what_follows_a_kept_layer_is_kept(quantiser, reference):
    """An INT8 sum, activation or resizing behind a layer in floating point would round its result all the same."""
    readers = {}
    for node in reference.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    by_output = {node.output[0]: node for node in reference.graph.node}
    followed = next(
        node
        for node in reference.graph.node
        if node.name in quantiser.layers
        and [reader.op_type for reader in readers[node.output[0]]] == ["Relu"]
        and any(reader.op_type == "Resize" for reader in readers[readers[node.output[0]][0].output[0]])
    )
    relu = readers[followed.output[0]][0]
    resize = readers[relu.output[0]][0]
    total = readers[resize.output[0]][0]
    lateral = next(by_output[name] for name in total.input if name != resize.output[0])
    assert total.op_type == "Add" and lateral.name in quantiser.layers
    after = {reader.name for reader in readers[total.output[0]]}
    tensors = {relu.output[0], resize.output[0], total.output[0]}
    assert tensors <= quantised_tensors(quantiser.quantise())
    kept = quantised_tensors(quantiser.quantise({followed.name, lateral.name} | after))
    assert not kept & {followed.output[0], *tensors}


def test_more_layers_in_float_are_nearer_to_the_float_graph(quantiser, reference):
    image = {"image": scene(96, 128, np.random.default_rng(9))[None]}
    expected = session(reference).run(None, image)[0]
    shares = [
        float(np.mean(session(quantiser.quantise(quantiser.layers[:kept])).run(None, image)[0] == expected))
        for kept in (0, len(quantiser.layers) - 1)
    ]
    assert shares[0] < shares[1] > 0.9


def test_nothing_to_quantise_is_refused(quantiser):
    with pytest.raises(ValueError, match="no layer to quantise"):
        quantiser.quantise(quantiser.layers)


def test_products_with_a_constant_are_left_alone():
    """TensorRT refuses a quantised scalar."""
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], "layer"),
        helper.make_node("Mul", ["features", "scale"], ["scaled"], "with a constant"),
        helper.make_node("Mul", ["scaled", "features"], ["gated"], "with a tensor"),
        helper.make_node("Conv", ["gated", "weight"], ["logits"], "classifier"),
    ]
    assert _groups(nodes, {"weight", "scale"}) == {"layer": ["layer", "with a tensor"], "classifier": ["classifier"]}


def test_the_products_of_attention_and_the_inside_of_a_gelu_are_left_alone():
    nodes = [
        helper.make_node("LayerNormalization", ["image", "gamma", "beta"], ["normal"], "normalisation"),
        helper.make_node("MatMul", ["normal", "weight"], ["query"], "projection"),
        helper.make_node("MatMul", ["query", "normal"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], "softmax"),
        helper.make_node("MatMul", ["shares", "query"], ["mixed"], "mixing"),
        helper.make_node("Div", ["mixed", "root"], ["scaled"], "division"),
        helper.make_node("Erf", ["scaled"], ["error"], "error function"),
        helper.make_node("Add", ["error", "one"], ["above"], "sum"),
        helper.make_node("Mul", ["mixed", "above"], ["gelu"], "product"),
        helper.make_node("Add", ["gelu", "image"], ["residual"], "residual"),
        helper.make_node("MatMul", ["residual", "weight"], ["logits"], "classifier"),
    ]
    constants = {"gamma", "beta", "weight", "root", "one"}
    assert _groups(nodes, constants) == {"projection": ["projection", "residual"], "classifier": ["classifier"]}
