"""Which check must catch which damage: a deliberately damaged engine, signed anew where its hash would give it away."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.checks import CHECKS
from export.checks.examination.reference import Reference
from export.checks.verification import run_checks
from pipeline.models.network.weights import tensors_sha256
from serving.contract.manifest import METADATA_KEY, Manifest, read_sidecar, write_sidecar


def producer(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if name in node.output)


def convolutions(model: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def initializer(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change_values(model: ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = initializer(model, name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), name))


def insert_after(model: ModelProto, name: str, *nodes: onnx.NodeProto, **constants: np.ndarray) -> None:
    """Put nodes between the tensor `name` and all who read it; the first reads "before", the last gives "after"."""
    index = list(model.graph.node).index(producer(model, name))
    for node in model.graph.node:
        node.input[:] = [f"{name}_damaged" if value == name else value for value in node.input]
    for node in nodes:
        node.input[:] = [name if value == "before" else value for value in node.input]
        node.output[:] = [f"{name}_damaged" if value == "after" else value for value in node.output]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*rest[: index + 1], *nodes, *rest[index + 1 :]])
    model.graph.initializer.extend(numpy_helper.from_array(values, key) for key, values in constants.items())


def image_tensor(model: ModelProto) -> str:
    """The image as floats, before the mean is subtracted."""
    return next(node for node in model.graph.node if "image" in node.input).output[0]


def weights_of_one_layer_up(model: ModelProto) -> None:
    layer = convolutions(model)[len(convolutions(model)) // 2]
    change_values(model, layer.input[1], lambda values: values * 1.05)


def channels_swapped(model: ModelProto) -> None:
    change_values(model, convolutions(model)[0].input[1], lambda values: values[:, ::-1])


def normalisation_off(model: ModelProto) -> None:
    subtraction = next(node for node in model.graph.node if node.op_type == "Sub")
    change_values(model, subtraction.input[1], np.zeros_like)


def argmax_off_by_one(model: ModelProto) -> None:
    index = next(node for node in model.graph.node if node.op_type == "ArgMax").output[0]
    insert_after(model, index, helper.make_node("Add", ["before", "one"], ["after"]), one=np.array(1))


def classes_rotated(model: ModelProto) -> None:
    """Off by one too, but within the classes, so that no number is out of range."""
    index = next(node for node in model.graph.node if node.op_type == "ArgMax").output[0]
    nodes = [helper.make_node("Add", ["before", "one"], ["next"]), helper.make_node("Mod", ["next", "five"], ["after"])]
    insert_after(model, index, *nodes, one=np.array(1), five=np.array(5))


def corners_aligned(model: ModelProto) -> None:
    resize = producer(model, "logits")
    next(a for a in resize.attribute if a.name == "coordinate_transformation_mode").s = b"align_corners"


def upsampled_by_nearest(model: ModelProto) -> None:
    next(a for a in producer(model, "logits").attribute if a.name == "mode").s = b"nearest"


def slots_reversed(model: ModelProto) -> None:
    node = helper.make_node("Slice", ["before", "start", "end", "axis", "step"], ["after"])
    one = {"start": np.array([-1]), "end": np.array([-(2**31)]), "axis": np.array([0]), "step": np.array([-1])}
    insert_after(model, image_tensor(model), node, **one)


def statistics_of_the_batch(model: ModelProto) -> None:
    """As a batch norm left in training mode: right for one image, wrong as soon as there is company."""
    nodes = [
        helper.make_node("ReduceMean", ["before", "axis"], ["mean_of_batch"], keepdims=1),
        helper.make_node("Sub", ["before", "mean_of_batch"], ["apart"]),
        helper.make_node("Mul", ["apart", "tenth"], ["some"]),
        helper.make_node("Add", ["before", "some"], ["after"]),
    ]
    constants = {"axis": np.array([0]), "tenth": np.array(0.1, np.float32)}
    insert_after(model, convolutions(model)[3].output[0], *nodes, **constants)


def not_a_number_in_a_weight(model: ModelProto) -> None:
    def spoil(values: np.ndarray) -> np.ndarray:
        spoilt = values.copy()
        spoilt.flat[0] = np.nan
        return spoilt

    change_values(model, convolutions(model)[5].input[1], spoil)


def division_by_zero_at_white(model: ModelProto) -> None:
    """Weights are all finite; the logits are not where a channel is 255."""
    nodes = [
        helper.make_node("Sub", ["white", "before"], ["dark"]),
        helper.make_node("Div", ["nothing", "dark"], ["zero_or_nan"]),
        helper.make_node("Add", ["before", "zero_or_nan"], ["after"]),
    ]
    constants = {"white": np.array(255, np.float32), "nothing": np.array(0, np.float32)}
    insert_after(model, image_tensor(model), *nodes, **constants)


def clipped_at_the_top(model: ModelProto) -> None:
    node = helper.make_node("Clip", ["before", "", "most"], ["after"])
    insert_after(model, image_tensor(model), node, most=np.array(240, np.float32))


def mask_of_int64(model: ModelProto) -> None:
    cast = producer(model, "mask")
    cast.attribute[0].i = TensorProto.INT64
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def one_image_only(model: ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1


def renamed_output(model: ModelProto) -> None:
    producer(model, "mask").output[0] = "classes"
    model.graph.output[0].name = "classes"


def projection_head_as_output(model: ModelProto) -> None:
    features = convolutions(model)[-1].input[0]
    model.graph.node.append(helper.make_node("Conv", [features, "projection"], ["embeddings"]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((256, 16, 1, 1), np.float32), "projection"))
    model.graph.output.append(helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["b", 256, "h", "w"]))


def projection_head_left_inside(model: ModelProto) -> None:
    projection_head_as_output(model)
    del model.graph.output[1]


def weights_left_behind(model: ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((256, 16), np.float32), "memory_bank"))


def batch_norm_not_folded(model: ModelProto) -> None:
    layer = convolutions(model)[0]
    channels = initializer(model, layer.input[1]).dims[0]
    names = ["gamma", "beta", "running_mean", "running_var"]
    node = helper.make_node("BatchNormalization", ["before", *names], ["after"], epsilon=0.0)
    values = (1, 0, 0, 1)
    constants = {name: np.full(channels, value, np.float32) for name, value in zip(names, values, strict=True)}
    insert_after(model, layer.output[0], node, **constants)


def stack_traces_kept(model: ModelProto) -> None:
    model.graph.node[3].metadata_props.add(key="pkg.torch.onnx.stack_trace", value='File "/home/me/net.py", line 3')


def manifest_of_another_file(model: ModelProto) -> None:
    entry = next(item for item in model.metadata_props if item.key == METADATA_KEY)
    manifest = Manifest.from_json(entry.value)
    names = tuple(reversed(manifest.class_names))
    entry.value = dataclasses.replace(manifest, class_names=names).to_json()


def manifest_missing_inside(model: ModelProto) -> None:
    del model.metadata_props[:]


def weights_outside_the_file(model: ModelProto) -> None:
    tensor = initializer(model, convolutions(model)[0].input[1])
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../elsewhere.bin")


def precision_overstated(model: ModelProto) -> None:
    """A graph in single precision whose manifest says half."""
    entry = next(item for item in model.metadata_props if item.key == METADATA_KEY)
    entry.value = dataclasses.replace(Manifest.from_json(entry.value), precision="fp16").to_json()


# Damage -> checks that must fail. The file is signed anew, as by someone who exports with a defect.
TABLE: dict[Callable[[ModelProto], None], set[str]] = {
    weights_of_one_layer_up: {"logits", "shapes", "extremes"},
    channels_swapped: {"logits", "agreement", "accuracy"},
    normalisation_off: {"logits", "agreement", "accuracy", "extremes"},
    argmax_off_by_one: {"exposure", "masks", "agreement", "shapes", "extremes", "accuracy", "structure"},
    classes_rotated: {"exposure", "masks", "agreement", "shapes", "extremes", "accuracy"},
    corners_aligned: {"logits", "shapes", "structure"},
    upsampled_by_nearest: {"logits", "agreement"},
    slots_reversed: {"batch", "shapes"},
    statistics_of_the_batch: {"batch", "shapes"},
    not_a_number_in_a_weight: {"finite", "logits"},
    division_by_zero_at_white: {"finite", "extremes"},
    clipped_at_the_top: {"extremes"},
    mask_of_int64: {"contract", "accuracy"},
    one_image_only: {"contract"},  # the others keep to the batches that an engine takes
    renamed_output: {"contract", "accuracy"},
    projection_head_as_output: {"contract", "structure"},
    projection_head_left_inside: {"structure"},
    weights_left_behind: {"structure"},
    batch_norm_not_folded: {"structure"},
    stack_traces_kept: {"structure"},
    manifest_of_another_file: {"integrity"},
    manifest_missing_inside: {"integrity"},
    weights_outside_the_file: {"structure", "logits", "accuracy"},
    precision_overstated: {"precision"},
}


def damage(engine: Path, change: Callable[[ModelProto], None]) -> None:
    """Change the graph and sign the file anew."""
    manifest = dataclasses.replace(read_sidecar(engine), sha256=None)
    model = onnx.load(engine)
    change(model)
    if change is precision_overstated:
        manifest = dataclasses.replace(manifest, precision="fp16")
    engine.write_bytes(model.SerializeToString())
    write_sidecar(manifest, engine)


def failing(context, names) -> set[str]:
    with context:
        return {result.name for result in run_checks(context, names) if result.status == "fail"}


@pytest.mark.parametrize("change", TABLE, ids=lambda change: change.__name__)
def test_the_damage_is_caught(change, engine, examine):
    damage(engine, change)
    names = [name for name in CHECKS if name in TABLE[change]]
    assert failing(examine(engine), names) == TABLE[change]


def test_signing_anew_alone_breaks_nothing(engine, examine):
    damage(engine, lambda model: None)
    assert failing(examine(engine), None) == set()


def test_every_check_has_a_damage_that_it_must_catch():
    assert set().union(*TABLE.values()) == set(CHECKS)


def test_a_change_of_any_layer_is_caught(exported, engine, examine):
    original = onnx.load(exported)
    layers = convolutions(original)
    missed = []
    for index in range(0, len(layers), 9):
        engine.write_bytes(exported.read_bytes())
        damage(engine, functools.partial(change_values, name=layers[index].input[1], change=lambda v: v * 1.05))
        if failing(examine(engine), ["logits"]) != {"logits"}:
            missed.append(layers[index].name)
    assert missed == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.999])
def test_a_truncated_file_fails_and_every_check_answers(share, engine, examine):
    content = engine.read_bytes()
    engine.write_bytes(content[: int(len(content) * share)])
    with examine(engine) as context:
        results = run_checks(context)
    assert [result.name for result in results] == list(CHECKS)
    failed = {result.name: result.detail for result in results if result.status == "fail"}
    assert {"integrity", "logits", "masks", "accuracy"} <= set(failed)
    assert "sha256" in failed["integrity"]
    assert all(failed.values()), "every failure says why"


def test_one_flipped_bit_is_caught_by_the_hash(engine, examine):
    content = bytearray(engine.read_bytes())
    content[len(content) // 2] ^= 1
    engine.write_bytes(bytes(content))
    assert failing(examine(engine), ["integrity", "contract"]) == {"integrity"}


def test_a_stale_file_is_caught(engine, examine, segmentor, info):
    """Whole and consistent, but exported before the network was trained on."""
    trained_on = copy.deepcopy(segmentor)
    with torch.no_grad():
        for parameter in trained_on.parameters():
            parameter.mul_(1.01)
    provenance = info.provenance | {"weights_sha256": tensors_sha256(trained_on.state_dict())}
    newer = Reference(trained_on, dataclasses.replace(info, provenance=provenance))
    with examine(engine, reference=newer) as context:
        results = {result.name: result for result in run_checks(context, ["integrity", "logits"])}
    assert results["integrity"].status == "fail" and "stale" in results["integrity"].detail
    assert "weights_sha256" in results["integrity"].detail
    assert results["logits"].status == "fail"


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "not json", '{"schema": 99}'])
def test_a_spoilt_manifest_fails_and_nothing_is_raised(content, engine, examine):
    sidecar = engine.with_name("manifest.json")
    if content is None:
        sidecar.unlink()
    else:
        sidecar.write_text(content)
    with examine(engine) as context:
        results = run_checks(context)
    assert {result.status for result in results} == {"fail"}


def test_another_files_manifest_is_caught(engine, examine):
    sidecar = engine.with_name("manifest.json")
    sidecar.write_text(sidecar.read_text().replace('"sign"', '"post"'))
    with examine(engine) as context:
        (result,) = run_checks(context, ["integrity"])
    assert result.status == "fail"
    assert "differs from the one beside it in class_names" in result.detail
