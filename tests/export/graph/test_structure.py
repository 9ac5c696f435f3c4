"""Structure: the same for graphs that differ in names, order and weights; different for all else."""

from __future__ import annotations

import itertools
import random

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.graph.canonical import canonical
from export.graph.structure import first_difference, structure_sha256, unneeded_nodes, unused_initializers


def tensor(name: str, values: object, dtype: type = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def small_model(**changes: object) -> ModelProto:
    """Two branches over one input, a residual, a resize and an argmax: [B,3,H,W] -> [B,H,W]."""
    rng = np.random.default_rng(0)
    weights = [
        tensor("w1", rng.normal(size=(4, 3, 3, 3))),
        tensor("b1", rng.normal(size=4)),
        tensor("w2", rng.normal(size=(4, 3, 1, 1))),
        tensor("w3", rng.normal(size=(5, 4, 1, 1))),
        tensor("low", 0.0),
        tensor("high", changes.get("high", 6.0)),
        tensor("scales", changes.get("scales", [1, 1, 2, 2])),
    ]
    nodes = [
        helper.make_node(
            "Conv", ["image", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=changes.get("strides", [1, 1])
        ),
        helper.make_node("Clip", ["a", "low", "high"], ["c"]),
        helper.make_node("Conv", ["image", "w2"], ["d"], strides=changes.get("strides", [1, 1])),
        helper.make_node("Add", ["c", "d"], ["e"]),
        helper.make_node("Conv", ["e", "w3"], ["f"]),
        helper.make_node("Resize", ["f", "", "scales"], ["g"], mode="linear"),
        helper.make_node("ArgMax", ["g"], ["mask"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, "H", "W"])],
        [helper.make_tensor_value_info("mask", TensorProto.INT64, ["B", "h", "w"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def disguised(model: ModelProto, seed: int) -> ModelProto:
    """The same graph with other names, another order of nodes and initializers, and other weights."""
    shuffled = ModelProto()
    shuffled.CopyFrom(model)
    generator = random.Random(seed)
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names |= {item.name for item in model.graph.initializer}
    other = sorted(names - kept)
    generator.shuffle(other)
    renamed = {name: f"t{index}" for index, name in enumerate(other)} | {name: name for name in kept}
    for node in shuffled.graph.node:
        node.name = f"n{generator.random()}"
        node.doc_string = "elsewhere"
        node.input[:] = [renamed[name] for name in node.input]
        node.output[:] = [renamed[name] for name in node.output]
    rng = np.random.default_rng(seed)
    for item in shuffled.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.ndim in (1, 4) and item.name not in ("scales",):
            values = rng.normal(size=values.shape).astype(values.dtype)
        item.CopyFrom(numpy_helper.from_array(values, renamed[item.name]))
    initializers = list(shuffled.graph.initializer)
    generator.shuffle(initializers)
    del shuffled.graph.initializer[:]
    shuffled.graph.initializer.extend(initializers)
    ready, ordered, known = list(shuffled.graph.node), [], kept | {item.name for item in initializers}
    while ready:  # a random topological order
        able = [node for node in ready if set(node.input) <= known]
        node = generator.choice(able)
        ready.remove(node)
        ordered.append(node)
        known |= set(node.output)
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(ordered)
    onnx.checker.check_model(shuffled)
    return shuffled


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_names_order_and_weights_do_not_matter(seed):
    model = small_model()
    other = disguised(model, seed)
    assert structure_sha256(model) == structure_sha256(other)
    assert first_difference(model, other) is None
    assert canonical(model) == canonical(other)


def test_written_defaults_and_constant_nodes_are_the_same_structure():
    model = small_model()
    other = small_model()
    other.graph.node[0].attribute.append(helper.make_attribute("group", 1))
    scales = next(item for item in other.graph.initializer if item.name == "scales")
    node = helper.make_node("Constant", [], ["scales"], value=scales)
    other.graph.initializer.remove(scales)
    other.graph.node.insert(0, node)
    floats = next(item for item in other.graph.initializer if item.name == "high")
    other.graph.initializer.remove(floats)
    other.graph.node.insert(0, helper.make_node("Constant", [], ["high"], value_float=6.0))
    onnx.checker.check_model(other)
    assert first_difference(model, other) is None


def change_operator(model):
    model.graph.node[3].op_type = "Mul"


def change_stride(model):
    for index in (0, 2):
        next(a for a in model.graph.node[index].attribute if a.name == "strides").ints[:] = [2, 2]


def change_edge(model):
    model.graph.node[3].input[1] = "c"


def change_channels(model):
    model.graph.initializer[0].CopyFrom(tensor("w1", np.zeros((8, 3, 3, 3))))


def change_dtype(model):
    model.graph.initializer[0].CopyFrom(tensor("w1", np.zeros((4, 3, 3, 3)), np.float16))


def change_bound(model):
    model.graph.initializer[5].CopyFrom(tensor("high", 3.0))


def change_scale(model):
    model.graph.initializer[6].CopyFrom(tensor("scales", [1, 1, 4, 4]))


def change_output(model):
    model.graph.output.append(helper.make_tensor_value_info("e", TensorProto.FLOAT, None))


def change_input_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def change_opset(model):
    model.opset_import[0].version = 17


def add_dead_node(model):
    model.graph.node.append(helper.make_node("Relu", ["c"], ["nowhere"]))


def add_unused_weight(model):
    model.graph.initializer.append(tensor("projection", np.zeros((256, 4))))


DIFFERENT = {
    change_operator: "operator Add against Mul",
    change_stride: "attribute strides is [1, 1] against [2, 2]",
    change_edge: "operator Conv against Add",
    change_channels: "float[4,3,3,3]) against constant 0 (float[8,3,3,3])",
    change_dtype: "float16[4,3,3,3]",
    change_bound: "input 2 of Clip is",
    change_scale: "[1.0, 1.0, 4.0, 4.0]",
    change_output: "graph outputs: mask int64[B,h,w] against mask int64[B,h,w], e float[...]",
    change_input_type: "graph inputs: image float[B,3,H,W] against image float16[B,3,H,W]",
    change_opset: "operator sets: ai.onnx 18 against ai.onnx 17",
    add_dead_node: "the second graph goes on with Relu (nowhere)",
    add_unused_weight: "constants: 7 against 8",
}


@pytest.mark.parametrize("change", DIFFERENT, ids=lambda change: change.__name__)
def test_every_other_difference_is_found_and_named(change):
    model, other = small_model(), small_model()
    change(other)
    assert structure_sha256(model) != structure_sha256(other)
    difference = first_difference(model, other)
    assert difference is not None
    assert DIFFERENT[change] in difference
    assert first_difference(other, model) is not None


def test_sharing_one_weight_is_another_structure_than_two_equal_ones():
    def doubled(second: str) -> ModelProto:
        weights = [tensor("p", np.zeros((3, 3, 1, 1))), tensor("q", np.zeros((3, 3, 1, 1)))]
        nodes = [helper.make_node("Conv", ["x", "p"], ["y"]), helper.make_node("Conv", ["y", second], ["z"])]
        io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "z")]
        return helper.make_model(helper.make_graph(nodes, "g", io[:1], io[1:], weights))

    assert structure_sha256(doubled("p")) != structure_sha256(doubled("q"))
    assert unused_initializers(doubled("p")) == ["q"]


def test_which_of_two_equal_branches_is_read_matters():
    """A multiset of node descriptions would call these equal: only the wiring differs."""

    def wired(first: str, second: str) -> ModelProto:
        weights = [tensor("p", np.zeros((3, 3, 1, 1))), tensor("q", np.zeros((3, 3, 1, 1)))]
        nodes = [
            helper.make_node("Conv", ["x", "p"], ["a"]),
            helper.make_node("Conv", ["x", "q"], ["b"]),
            helper.make_node("Relu", [first], ["c"]),
            helper.make_node("Sigmoid", [second], ["d"]),
            helper.make_node("Sum", ["a", "b", "c", "d"], ["z"]),
        ]
        io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "z")]
        return helper.make_model(helper.make_graph(nodes, "g", io[:1], io[1:], weights))

    assert structure_sha256(wired("a", "a")) != structure_sha256(wired("a", "b"))
    assert structure_sha256(wired("a", "b")) != structure_sha256(wired("b", "a"))


def test_integer_weights_of_quantised_operators_are_weights_and_other_integers_are_structure():
    def quantised(weight: int, axis: int) -> ModelProto:
        weights = [
            tensor("w", np.full((4, 4), weight), np.int8),
            tensor("scale", 0.1),
            tensor("zero", weight, np.int8),
            tensor("bias", np.full(4, weight), np.int32),
            tensor("shape", [1, 4] if axis else [4, 1], np.int64),
        ]
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["dw"]),
            helper.make_node("DequantizeLinear", ["bias", "scale"], ["db"]),
            helper.make_node("Gemm", ["x", "dw", "db"], ["y"]),
            helper.make_node("Reshape", ["y", "shape"], ["z"]),
        ]
        io = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
        ]
        return helper.make_model(helper.make_graph(nodes, "g", io[:1], io[1:], weights))

    assert first_difference(quantised(1, 0), quantised(2, 0)) is None
    assert "input 1 of Reshape" in str(first_difference(quantised(1, 0), quantised(1, 1)))


def test_subgraphs_count_with_what_they_capture():
    def branching(operator: str, captured: str) -> ModelProto:
        out = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
        then = helper.make_graph([helper.make_node(operator, [captured], ["r"])], "then", [], out)
        otherwise = helper.make_graph([helper.make_node("Identity", ["x"], ["r"])], "else", [], out)
        nodes = [
            helper.make_node("Relu", ["x"], ["y"]),
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("If", ["flag"], ["i"], then_branch=then, else_branch=otherwise),
            helper.make_node("Sum", ["i", "y", "s"], ["z"]),
        ]
        io = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, None),
        ]
        return helper.make_model(helper.make_graph(nodes, "g", io[:2], io[2:]))

    base = branching("Exp", "y")
    assert first_difference(base, branching("Exp", "y")) is None
    assert "attribute then_branch" in str(first_difference(base, branching("Neg", "y")))
    assert first_difference(base, branching("Exp", "s")) is not None
    assert unneeded_nodes(base) == []


def test_local_functions_are_the_same_as_their_body():
    body = [helper.make_node("Relu", ["u"], ["v"]), helper.make_node("Neg", ["v"], ["t"])]
    opset = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Negative", ["u"], ["t"], body, opset)
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "z")]
    called = helper.make_model(
        helper.make_graph([helper.make_node("Negative", ["x"], ["z"], domain="local")], "g", io[:1], io[1:]),
        functions=[function],
        opset_imports=[*opset, helper.make_opsetid("local", 1)],
    )
    assert [node.operator for node in canonical(called).nodes] == ["Relu", "Neg"]


def test_what_no_output_needs_is_listed():
    model = small_model()
    assert unneeded_nodes(model) == [] and unused_initializers(model) == []
    add_unused_weight(model)
    model.graph.node.append(helper.make_node("MatMul", ["d", "extra"], ["embeddings"]))
    model.graph.initializer.append(tensor("extra", np.zeros((4, 4))))
    assert unneeded_nodes(model) == ["MatMul (embeddings)"]
    assert unused_initializers(model) == ["projection", "extra"]


def test_unneeded_nodes_keep_the_form_independent_of_order():
    def with_dead(order: list[str]) -> ModelProto:
        model = small_model()
        for operator in order:
            model.graph.node.append(helper.make_node(operator, ["c"], [f"dead_{operator}"]))
        return model

    assert structure_sha256(with_dead(["Relu", "Exp", "Neg"])) == structure_sha256(with_dead(["Neg", "Relu", "Exp"]))


def test_a_deep_graph_needs_no_deep_stack():
    names = [f"t{index}" for index in range(5001)]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in (names[0], names[-1])]
    model = helper.make_model(helper.make_graph(nodes, "deep", io[:1], io[1:]))
    assert len(canonical(model).nodes) == 5000


def test_hostile_graphs_are_refused():
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "z")]

    def graph(*nodes: onnx.NodeProto) -> ModelProto:
        return helper.make_model(helper.make_graph(list(nodes), "g", io[:1], io[1:]))

    with pytest.raises(ValueError, match="not acyclic"):
        canonical(graph(helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Relu", ["y"], ["z"])))
    with pytest.raises(ValueError, match="not acyclic"):
        canonical(graph(helper.make_node("Relu", ["z"], ["z"])))
    with pytest.raises(ValueError, match="nothing gives: w"):
        canonical(graph(helper.make_node("Add", ["x", "w"], ["z"])))
    with pytest.raises(ValueError, match="gives nothing"):
        canonical(graph(helper.make_node("Relu", ["x"], []), helper.make_node("Neg", ["x"], ["z"])))
    with pytest.raises(ValueError, match="single-assignment"):
        canonical(graph(helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Neg", ["x"], ["z"])))
