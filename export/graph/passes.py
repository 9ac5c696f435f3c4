"""What is done to an exported ONNX graph before it ships; every pass works in place and keeps the results.

Passes that rewire a graph work on onnx_ir's model, which knows the readers of every value, as its own passes do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
import onnx_ir
from onnx import ModelProto, numpy_helper
from onnx import helper as onnx_helper

from export.graph.canonical import canonical
from export.graph.costs import TensorType
from export.graph.deploy import LOGITS_NAME, MASK_NAME

AXES = ("batch", "height", "width")


def run_passes(model: ModelProto, *passes: Callable[[onnx_ir.Model], object]) -> ModelProto:
    """What the passes, in this order, make of a copy of `model`; without what it notes of inner shapes."""
    graph = onnx_ir.from_proto(model)
    for each in passes:
        each(graph)
    result = onnx_ir.to_proto(graph)
    del result.graph.value_info[:]
    return result


def scale_resizes(model: ModelProto, probes: Sequence[Mapping[str, TensorType]]) -> bool:
    """Give every Resize constant scales instead of computed sizes, where the ratio is one whole number at all probes.

    The sampled positions stay the same to the bit, the arithmetic on shapes becomes unneeded, and ONNX Runtime can run
    the operator in its blocked layout.

    Args:
        model: changed in place.
        probes: types of all tensors, once per probed input size.

    Returns:
        Whether all of them scale by whole numbers.
    """
    complete = True
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        ratios = [_whole_ratio(types[node.input[0]].shape, types[node.output[0]].shape) for types in probes]
        if ratios[0] is None or any(ratio != ratios[0] for ratio in ratios):
            complete = False
            continue
        name = f"{node.output[0]}_scales"
        model.graph.initializer.append(numpy_helper.from_array(np.array(ratios[0], np.float32), name))
        source = node.input[0]
        del node.input[:]
        node.input.extend([source, "", name])
        for attribute in node.attribute:
            # They differ only where a side becomes 1 pixel long, which a whole factor above 1 never gives.
            if attribute.name == "coordinate_transformation_mode" and attribute.s == b"pytorch_half_pixel":
                attribute.s = b"half_pixel"
    return complete


def _whole_ratio(source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...] | None:
    if any(b % a for a, b in zip(source, target, strict=True)):
        return None
    return tuple(b // a for a, b in zip(source, target, strict=True))


def settle_reshapes(model: ModelProto, probes: Sequence[Mapping[str, TensorType]]) -> None:
    """Let no Reshape read sizes that are computed one by one, where its target can be told without.

    Copied, constant and one remaining axis make a constant target. Where two axes remain, as where attention puts
    height and width back, the shape of the nearest tensor before it that has these sizes at all probes is taken whole,
    with constants in the place of the other axes. What is reshaped stays the same to the bit, and the arithmetic on
    shapes becomes unneeded. OpenVINO (2026.4.1) computes INT8 graphs wrong in which such single sizes are joined:
    docs/engines.md.

    Args:
        model: changed in place.
        probes: types of all tensors, once per probed input size.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    for position, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type != "Reshape" or node.input[1] not in makers:
            continue
        if any(name not in types for types in probes for name in (node.input[0], node.output[0])):
            continue  # its sizes follow from values
        source, result = ([types[name].shape for types in probes] for name in (node.input[0], node.output[0]))
        target = [_settled(axis, source, result) for axis in range(len(result[0]))]
        name = f"{node.output[0]}_settled"
        if target.count(-1) <= 1:
            model.graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), name))
        elif (alike := _with_sizes(makers, node.input[0], target, result, probes)) is not None:
            values = {
                f"{name}_kept": [int(size <= 0) for size in target],
                f"{name}_set": [max(size, 0) for size in target],
            }
            model.graph.initializer.extend(
                numpy_helper.from_array(np.array(value, np.int64), key) for key, value in values.items()
            )
            kept, fixed = values
            for arithmetic in (
                onnx_helper.make_node("Add", [f"{name}_sizes", fixed], [name]),
                onnx_helper.make_node("Mul", [f"{name}_shape", kept], [f"{name}_sizes"]),
                onnx_helper.make_node("Shape", [alike], [f"{name}_shape"]),
            ):
                model.graph.node.insert(position, arithmetic)
        else:
            continue
        node.input[1] = name
        for attribute in list(node.attribute):  # a zero copies
            if attribute.name == "allowzero":
                node.attribute.remove(attribute)


def _settled(axis: int, source: Sequence[tuple[int, ...]], result: Sequence[tuple[int, ...]]) -> int:
    """A constant, 0 where the axis is copied, -1 where it depends on the size otherwise."""
    sizes = {shape[axis] for shape in result}
    if len(sizes) == 1:
        return sizes.pop()
    copied = all(axis < len(a) and a[axis] == b[axis] for a, b in zip(source, result, strict=True))
    return 0 if copied else -1


def _with_sizes(
    makers: Mapping[str, onnx.NodeProto],
    start: str,
    target: Sequence[int],
    result: Sequence[tuple[int, ...]],
    probes: Sequence[Mapping[str, TensorType]],
) -> str | None:
    """The nearest tensor that `start` comes from, or itself, with all sizes of `result` that are no constants."""
    axes = [axis for axis, size in enumerate(target) if size <= 0]
    pending, seen = [start], set[str]()
    while pending:
        name = pending.pop(0)
        if name in seen or any(name not in types for types in probes):
            continue
        seen.add(name)
        shapes = [types[name].shape for types in probes]
        if all(
            len(shape) == len(wanted) and all(shape[axis] == wanted[axis] for axis in axes)
            for shape, wanted in zip(shapes, result, strict=True)
        ):
            return name
        if name in makers:
            pending.extend(makers[name].input)
    return None


def set_io(model: ModelProto) -> None:
    """Name the dynamic axes of input and outputs, and drop what the exporter noted of inner shapes."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in zip(AXES, value.type.tensor_type.shape.dim, strict=False):
            dim.dim_param = axis
    del model.graph.value_info[:]


def fold_input_scale(model: onnx_ir.Model) -> bool:
    """Fold the division by the standard deviation into the first convolution: (x / s) * w = x * (w / s).

    Padding adds zeros, which no scale changes, so this holds up to rounding. Not where anything else reads the image.

    Returns:
        Whether the graph had the pattern.
    """
    for division in model.graph:
        transpose = _only_reader(division, "Transpose")
        convolution = _only_reader(transpose, "Conv")
        if division.op_type != "Div" or transpose is None or convolution is None:
            continue
        weight, std = _initializer(convolution, 1), _initializer(division, 1)
        if weight is None or std is None or len(weight.value.uses()) > 1:
            continue
        if std.array.ndim > 1 or weight.array.shape[1] != 3:
            continue
        scaled = weight.array.astype(np.float64) / std.array.astype(np.float64).reshape(-1, 1, 1)
        weight.value.const_value = onnx_ir.tensor(scaled.astype(weight.array.dtype), name=weight.value.name)
        transpose.replace_input_with(0, division.inputs[0])
        model.graph.remove(division, safe=True)
        return True
    return False


class _Initializer(NamedTuple):
    """A constant input of a node, and the values that it holds."""

    value: onnx_ir.Value
    array: np.ndarray


def _initializer(node: onnx_ir.Node, position: int) -> _Initializer | None:
    """An input that is an initializer, with its values; else None."""
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None or value.const_value is None:
        return None
    return _Initializer(value, value.const_value.numpy())


def _only_reader(node: onnx_ir.Node | None, operator: str) -> onnx_ir.Node | None:
    """The one node that reads the first output of `node`, as its first input, where it is of that operator."""
    uses = list(node.outputs[0].uses()) if node is not None else []
    if len(uses) != 1 or uses[0].idx != 0 or uses[0].node.op_type != operator:
        return None
    return uses[0].node


def name_logits(model: onnx_ir.Model) -> None:
    """Give the tensor that argmax reads its public name.

    Raises:
        ValueError: the mask does not come from one ArgMax, or the name is taken.
    """
    logits: onnx_ir.Value | None = next(value for value in model.graph.outputs if value.name == MASK_NAME)
    while logits is not None and (node := logits.producer()) is not None and node.op_type in ("Cast", "ArgMax"):
        logits = node.inputs[0]
        if logits is not None and node.op_type == "ArgMax":
            break
    else:
        raise ValueError("the mask does not come from an ArgMax: the logits cannot be found in this graph")
    values = (*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs))
    if any(value.name == LOGITS_NAME and value is not logits for value in values):
        raise ValueError(f"the graph has a tensor {LOGITS_NAME!r} already")
    logits.name = LOGITS_NAME


def complete_biases(model: onnx_ir.Model) -> None:
    """Give every convolution a bias, zero where it has none.

    PyTorch's exporter drops a bias whose values are all zero, as those of a fresh network are: whether it did would
    show in the structure, and two trainings of one network could differ in it. Runtimes add the bias at no
    measurable cost.
    """
    for node in model.graph:
        if node.op_type != "Conv" or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        weight = _initializer(node, 1)
        if weight is not None:
            bias = np.zeros(len(weight.array), weight.array.dtype)
            node.resize_inputs(3)
            node.replace_input_with(2, add_initializer(model.graph, f"{node.outputs[0].name}_bias", bias))


def keep_pads_before_max_pools(model: onnx_ir.Model) -> None:
    """Name the axes of every padding that a MaxPool reads: with them ONNX Runtime leaves the padding as it is.

    From level `basic` on, it (1.31.1 at least) hands the amounts of a padding to the MaxPool behind it, whose own
    padding is minus infinity: where all that the window covers is negative, the zeros are gone that should have won.
    HGNetV2 pads what a learned sum may have made negative.
    """
    for node in model.graph:
        readers = [use.node.op_type for value in node.outputs for use in value.uses()]
        if node.op_type != "Pad" or "MaxPool" not in readers or len(node.inputs) > 3:
            continue
        pads = _initializer(node, 1)
        if pads is not None:  # of amounts that are computed it hands over none
            node.resize_inputs(4)
            axes = np.arange(len(pads.array) // 2, dtype=np.int64)
            node.replace_input_with(3, add_initializer(model.graph, f"{node.outputs[0].name}_axes", axes))


def unshare_weights(model: onnx_ir.Model) -> None:
    """Give every use of a learned tensor a tensor of its own.

    PyTorch's exporter merges tensors of equal values, such as the zero biases of a fresh network. Whether values happen
    to be equal would then show in the structure, and two trainings of one network could differ in it.
    """
    learned = {constant.name for constant in canonical(onnx_ir.to_proto(model)).constants if constant.value is None}
    seen: set[str] = set()
    for node in model.graph:
        for position, value in enumerate(node.inputs):
            if value is None or value.name not in learned or value.const_value is None:
                continue
            if value.name in seen:
                name = f"{value.name}_{node.outputs[0].name}_{position}"
                node.replace_input_with(position, add_initializer(model.graph, name, value.const_value.numpy()))
            seen.add(value.name)


def add_initializer(graph: onnx_ir.Graph, name: str, values: np.ndarray) -> onnx_ir.Value:
    """A new constant of the graph."""
    value = onnx_ir.Value(name=name, const_value=onnx_ir.tensor(values, name=name))
    graph.register_initializer(value)
    return value


def anonymise(model: ModelProto) -> None:
    """Remove what tells of the machine and the source tree: stack traces, module paths, versions, doc strings.

    By hand, since `ClearMetadataAndDocStringPass` of onnx_ir leaves those of the model, its inputs and initializers.
    """
    model.producer_name, model.producer_version, model.doc_string, model.domain = "contrail", "", "", ""
    model.graph.name, model.graph.doc_string = "segmentor", ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]


def serialise(model: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a model that passes ONNX's full check; the same for equal models.

    Raises:
        onnx.checker.ValidationError: the graph is not valid.
    """
    onnx_helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
