"""Passes keep what a graph computes; each is tried on a small graph in ONNX's own reference evaluator."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.graph import passes
from export.graph.costs import infer_types

RNG = np.random.default_rng(0)
WEIGHTS = {
    "mean": np.array([120, 110, 100], np.float32),
    "std": np.array([58, 57, 56], np.float32),
    "w": RNG.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "c": RNG.normal(size=(5, 4, 1, 1)).astype(np.float32),
    "sizes": np.array([1, 5, 8, 12]),
}


def network(*extra: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None) -> ModelProto:
    """uint8 [B,8,12,3] -> mask, with a division by the std and a Resize to fixed sizes."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Transpose", ["normalised"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["a"], strides=[2, 2], name="first"),
        helper.make_node("Conv", ["a", "c"], ["b"], name="second"),
        helper.make_node(
            "Resize",
            ["b", "", "", "sizes"],
            ["big"],
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        ),
        helper.make_node("ArgMax", ["big"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["mask"], to=TensorProto.UINT8),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 12, 3])],
        [helper.make_tensor_value_info("mask", TensorProto.UINT8, [1, 8, 12])],
        [numpy_helper.from_array(values, name) for name, values in (WEIGHTS | (weights or {})).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def run(model: ModelProto, name: str) -> np.ndarray:
    """The value of an inner tensor on a fixed image."""
    exposed = ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None))
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 12, 3), np.uint8)
    return ReferenceEvaluator(exposed).run(None, {"image": image})[0]


def folded(model: ModelProto) -> tuple[ModelProto, bool]:
    """The model after `fold_input_scale`, and whether that found the pattern."""
    found: list[bool] = []
    return passes.run_passes(model, lambda graph: found.append(passes.fold_input_scale(graph))), found[0]


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_resizes_by_whole_ratios_get_scales_and_the_same_values():
    model = network()
    before = run(model, "big")
    assert passes.scale_resizes(model, [infer_types(model, (1, 8, 12, 3))])
    resize = model.graph.node[6]
    assert list(resize.input) == ["b", "", "big_scales"]
    scales = next(item for item in model.graph.initializer if item.name == "big_scales")
    assert numpy_helper.to_array(scales).tolist() == [1, 1, 2, 2]
    modes = {a.name: a.s for a in resize.attribute}
    assert modes["coordinate_transformation_mode"] == b"half_pixel"
    np.testing.assert_array_equal(run(model, "big"), before)


def test_a_resize_by_another_ratio_is_left_and_reported():
    model = network(weights={"sizes": np.array([1, 5, 9, 12])})
    types = infer_types(model, (1, 8, 12, 3))
    assert not passes.scale_resizes(model, [types])
    assert list(model.graph.node[6].input) == ["b", "", "", "sizes"]


def test_a_resize_whose_ratio_depends_on_the_size_is_left():
    model = network()
    types = infer_types(model, (1, 8, 12, 3))
    elsewhere = dict(types)
    elsewhere["b"] = type(types["b"])(types["b"].dtype, (1, 5, 8, 12))
    assert not passes.scale_resizes(model, [types, elsewhere])


def attention(rows: str = "h") -> ModelProto:
    """Height and width in one axis and back, by sizes that are read one by one and joined, as attention does it."""
    node = helper.make_node
    sizes = [node("Gather", ["shape", str(axis)], [name]) for axis, name in enumerate("bchw")]
    nodes = [
        node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        node("Transpose", ["numbers"], ["x"], perm=[0, 3, 1, 2]),
        node("Shape", ["x"], ["shape"]),
        *sizes,
        node("Mul", ["h", "w"], ["hw"]),
        node("Add", ["h", "1"], ["more"]),
        node("Concat", ["b", "c", "hw"], ["flat_target"], axis=0),
        node("Reshape", ["x", "flat_target"], ["flat"], allowzero=1),
        node("Relu", ["flat"], ["attended"]),
        node("Concat", ["b", "c", "w", rows], ["target"], axis=0),
        node("Reshape", ["attended", "target"], ["back"], allowzero=1),
    ]
    constants = [numpy_helper.from_array(np.array([value], np.int64), str(value)) for value in range(4)]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", "height", "width", 3])
    back = helper.make_tensor_value_info("back", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph(nodes, "attention", [image], [back], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


SIZES = ((1, 4, 6, 3), (3, 8, 2, 3), (2, 6, 10, 3))


def test_reshapes_take_constants_or_a_whole_shape_in_place_of_joined_sizes():
    model = attention()
    for node in model.graph.node:  # back to the axes as they were
        if node.output[0] == "target":
            node.input[:] = ["b", "c", "h", "w"]
    before = ModelProto()
    before.CopyFrom(model)
    passes.settle_reshapes(model, [infer_types(model, size) for size in SIZES])
    onnx.checker.check_model(model, full_check=True)
    pruned = passes.run_passes(model, RemoveUnusedNodesPass())
    assert operators(pruned) == ["Cast", "Transpose", "Reshape", "Relu", "Shape", "Mul", "Add", "Reshape"]
    (flat,) = (each for each in pruned.graph.initializer if each.name == "flat_settled")
    assert numpy_helper.to_array(flat).tolist() == [0, 3, -1]
    for size in (*SIZES, (5, 3, 7, 3)):
        image = np.random.default_rng(1).integers(0, 256, size, np.uint8)
        results = [ReferenceEvaluator(each).run(None, {"image": image})[0] for each in (before, pruned)]
        np.testing.assert_array_equal(*results)


def test_a_reshape_to_sizes_that_no_tensor_has_is_left():
    """Height and width change places: no tensor before it has them so."""
    model = attention()
    passes.settle_reshapes(model, [infer_types(model, size) for size in SIZES])
    pruned = passes.run_passes(model, RemoveUnusedNodesPass())
    assert next(node for node in pruned.graph.node if node.output[0] == "back").input[1] == "target"


def test_a_reshape_whose_sizes_are_not_known_is_left():
    model = attention()
    probes = [infer_types(model, size) for size in SIZES]
    del probes[1]["flat"]
    passes.settle_reshapes(model, probes)
    assert next(node for node in model.graph.node if node.output[0] == "flat").input[1] == "flat_target"


def test_an_axis_that_only_looks_copied_at_one_size_is_told_by_the_others():
    model = attention()
    square = [infer_types(model, (2, 4, 4, 3))]
    passes.settle_reshapes(model, [*square, infer_types(model, SIZES[1])])
    assert next(node for node in model.graph.node if node.output[0] == "back").input[1] == "target"


def test_the_division_folds_into_the_first_convolution():
    model = network()
    before = run(model, "big")
    model, found = folded(model)
    assert found and "Div" not in operators(model)
    np.testing.assert_allclose(run(model, "big"), before, rtol=1e-5, atol=1e-6)


def test_a_scalar_division_folds_too():
    model = network(weights={"std": np.array(57, np.float32)})
    before = run(model, "big")
    model, found = folded(model)
    assert found
    np.testing.assert_allclose(run(model, "big"), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reader", ["normalised", "nchw", "w"])
def test_nothing_folds_where_something_else_reads_it(reader):
    model = network(helper.make_node("Relu", [reader], ["other"]))
    model, found = folded(model)
    assert not found and "Div" in operators(model)


def test_logits_are_what_argmax_reads():
    model = network()
    before = run(model, "big")
    model = passes.run_passes(model, passes.name_logits)
    np.testing.assert_array_equal(run(model, "logits"), before)
    onnx.checker.check_model(model, full_check=True)


def test_logits_that_cannot_be_found_are_refused():
    model = network()
    model.graph.node[7].op_type = "Relu"
    with pytest.raises(ValueError, match="does not come from an ArgMax"):
        passes.run_passes(model, passes.name_logits)
    taken = network(helper.make_node("Relu", ["a"], ["logits"]))
    with pytest.raises(ValueError, match="has a tensor 'logits' already"):
        passes.run_passes(taken, passes.name_logits)


def test_every_convolution_gets_a_bias_that_changes_nothing():
    model = network()
    before = run(model, "big")
    model = passes.run_passes(model, passes.complete_biases)
    assert [len(node.input) for node in model.graph.node if node.op_type == "Conv"] == [3, 3]
    np.testing.assert_array_equal(run(model, "big"), before)
    assert passes.run_passes(model, passes.complete_biases) == model


def test_shared_weights_are_told_apart_and_shared_settings_are_not():
    model = network(
        helper.make_node("Conv", ["a", "c"], ["twin"]),
        helper.make_node("Clip", ["twin", "low"], ["e"]),
        helper.make_node("Clip", ["e", "low"], ["f"]),
        weights={"low": np.array(0, np.float32)},
    )
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, None))
    before = run(model, "f")
    model = passes.run_passes(model, passes.unshare_weights)
    readers = [name for node in model.graph.node for name in node.input]
    assert readers.count("c") == 1 and "c_twin_1" in readers and readers.count("low") == 2
    np.testing.assert_array_equal(run(model, "f"), before)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_zeros_padded_before_a_max_pool_win_over_negative_values_at_every_level(level):
    nodes = [helper.make_node("Pad", ["x", "pads"], ["padded"]), helper.make_node("MaxPool", ["padded"], ["y"])]
    nodes[1].attribute.append(helper.make_attribute("kernel_shape", [2, 2]))
    value_infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "h", "w"]) for name in ("x", "y")]
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1]), "pads")
    graph = helper.make_graph(nodes, "main", value_infos[:1], value_infos[1:], [pads])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    kept = passes.run_passes(model, passes.keep_pads_before_max_pools)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(kept.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (pooled,) = session.run(None, {"x": np.full((1, 1, 2, 2), -1, np.float32)})
    assert pooled.ravel().tolist() == [-1, 0, 0, 0]


def test_pruning_leaves_what_the_output_needs():
    model = network(
        helper.make_node("Conv", ["a", "p"], ["embeddings"]),
        helper.make_node("Relu", ["embeddings"], ["more"]),
        weights={"p": np.zeros((256, 4, 1, 1), np.float32), "unused": np.zeros(3, np.float32)},
    )
    before = run(model, "mask")
    model = passes.run_passes(model, RemoveUnusedNodesPass())
    assert len(model.graph.node) == 9
    assert {item.name for item in model.graph.initializer} == set(WEIGHTS)
    np.testing.assert_array_equal(run(model, "mask"), before)


def test_nothing_tells_of_the_machine():
    model = network()
    model.producer_version = "2.13.0+cpu"
    model.doc_string = "made in /home/someone"
    model.graph.node[0].doc_string = "File /home/someone/net.py"
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.stack_trace", "/home/someone/net.py"
    model.graph.metadata_props.add(key="signature", value="/home/someone")
    model.graph.input[0].metadata_props.add(key="k", value="/home/someone")
    passes.anonymise(model)
    content = passes.serialise(model, {"contrail.manifest": "{}"})
    assert b"someone" not in content and b"cpu" not in content


def test_serialising_refuses_an_invalid_graph():
    model = network()
    model.graph.node[8].input[0] = "nothing"
    with pytest.raises(onnx.checker.ValidationError):
        passes.serialise(model, {})
