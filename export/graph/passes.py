"""What is done to an exported ONNX graph before it ships; every pass works in place and keeps the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper
from onnx import helper as onnx_helper

from export.graph.costs import TensorType
from export.graph.deploy import LOGITS_NAME, MASK_NAME
from export.graph.structure import canonical, unused_initializers

AXES = ("batch", "height", "width")


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


def set_io(model: ModelProto) -> None:
    """Name the dynamic axes of input and outputs, and drop what the exporter noted of inner shapes."""
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in zip(AXES, value.type.tensor_type.shape.dim, strict=False):
            dim.dim_param = axis
    del model.graph.value_info[:]


def fold_input_scale(model: ModelProto) -> bool:
    """Fold the division by the standard deviation into the first convolution: (x / s) * w = x * (w / s).

    Padding adds zeros, which no scale changes, so this holds up to rounding. Not where anything else reads the image.

    Returns:
        Whether the graph had the pattern.
    """
    readers = _readers(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for division in model.graph.node:
        if division.op_type != "Div" or division.input[1] not in tensors:
            continue
        chain = _only_chain(division, readers)
        transpose, convolution = next(chain, None), next(chain, None)
        if transpose is None or transpose.op_type != "Transpose" or convolution is None:
            continue
        if convolution.op_type != "Conv" or convolution.input[0] != transpose.output[0]:
            continue
        weight = numpy_helper.to_array(tensors[convolution.input[1]])
        std = numpy_helper.to_array(tensors[division.input[1]])
        if std.ndim > 1 or weight.shape[1] != 3 or len(readers[convolution.input[1]]) > 1:
            continue
        scaled = (weight.astype(np.float64) / std.astype(np.float64).reshape(-1, 1, 1)).astype(weight.dtype)
        tensors[convolution.input[1]].CopyFrom(numpy_helper.from_array(scaled, convolution.input[1]))
        transpose.input[0] = division.input[0]
        model.graph.node.remove(division)
        return True
    return False


def _readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _only_chain(node: NodeProto, readers: Mapping[str, list[NodeProto]]) -> Iterator[NodeProto]:
    """The nodes after `node`, as long as each has exactly one reader."""
    while len(found := readers.get(node.output[0], [])) == 1:
        node = found[0]
        yield node


def name_logits(model: ModelProto) -> None:
    """Give the tensor that argmax reads its public name.

    Raises:
        ValueError: the mask does not come from one ArgMax, or the name is taken.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(MASK_NAME)
    while node is not None and node.op_type == "Cast":
        node = producers.get(node.input[0])
    if node is None or node.op_type != "ArgMax":
        raise ValueError("the mask does not come from an ArgMax: the logits cannot be found in this graph")
    rename(model, node.input[0], LOGITS_NAME)


def rename(model: ModelProto, old: str, new: str) -> None:
    """Rename an inner tensor. Raises ValueError when the new name is taken."""
    if old == new:
        return
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if new in taken | {tensor.name for tensor in model.graph.initializer}:
        raise ValueError(f"the graph has a tensor {new!r} already")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new


def complete_biases(model: ModelProto) -> None:
    """Give every convolution a bias, zero where it has none.

    PyTorch's exporter drops a bias whose values are all zero, as those of a fresh network are: whether it did would
    show in the structure, and two trainings of one network could differ in it. Runtimes add the bias at no
    measurable cost.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or node.input[1] not in tensors or (len(node.input) > 2 and node.input[2]):
            continue
        weight = tensors[node.input[1]]
        bias = np.zeros(weight.dims[0], onnx_helper.tensor_dtype_to_np_dtype(weight.data_type))
        del node.input[2:]
        node.input.append(f"{node.output[0]}_bias")
        model.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))


def unshare_weights(model: ModelProto) -> None:
    """Give every use of a learned tensor a tensor of its own.

    PyTorch's exporter merges tensors of equal values, such as the zero biases of a fresh network. Whether values happen
    to be equal would then show in the structure, and two trainings of one network could differ in it.
    """
    weights = {constant.name for constant in canonical(model).constants if constant.value is None}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name not in weights or name not in tensors:
                continue
            if name not in seen:
                seen.add(name)
                continue
            copy = model.graph.initializer.add()
            copy.CopyFrom(tensors[name])
            copy.name = f"{name}_{node.output[0]}_{position}"
            node.input[position] = copy.name


def prune(model: ModelProto) -> None:
    """Remove nodes and initializers that no output needs."""
    graph = canonical(model)
    needed = {node.name for node in graph.nodes[: graph.needed]} | {item.name for item in graph.constants}
    kept = [node for node in model.graph.node if next(filter(None, node.output)) in needed]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    unused = set(unused_initializers(model))
    tensors = [tensor for tensor in model.graph.initializer if tensor.name not in unused]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def anonymise(model: ModelProto) -> None:
    """Remove what tells of the machine and the source tree: stack traces, module paths, versions, doc strings."""
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
