"""An ONNX graph in half precision, converted from the one in single precision.

Converting the finished graph, and not exporting a half network, rounds every weight once: batch norms have been folded
in single precision (in half their small variances would vanish first). Both files then have the same operators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableSequence, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx import helper as onnx_helper

from export.graph.costs import TensorType, infer_types
from export.graph.deploy import CONFIDENCE_NAME, INPUT_NAME, LOGITS_NAME
from serving.contract.errors import UserError

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16

# Inputs that the standard wants in single precision, whatever the operator computes in.
_SINGLE_INPUTS = {"Resize": (1, 2)}
_LARGEST = float(np.finfo(np.float16).max)


def to_float16(model: ModelProto, shape: tuple[int, ...]) -> ModelProto:
    """The same graph with every operator between the normalisation and the argmax in float16.

    Cast and normalisation of the bytes stay in float32, as does what turns the logits into a confidence: few operators,
    whose rounding would reach every pixel.

    Args:
        model: graph in single precision; left as it is.
        shape: of an input that it takes.

    Raises:
        UserError: a weight is too large for half precision.
    """
    converted = ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    types = infer_types(model, shape)
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
    single = _single_nodes(graph.node) | _normalised_sums(graph.node, constants)
    made_in = {
        name: FLOAT if index in single else FLOAT16 for index, node in enumerate(graph.node) for name in node.output
    }
    casts: dict[tuple[str, int], str] = {}
    nodes: list[NodeProto] = []
    rounded_names: dict[str, str] = {}
    too_large: list[str] = []
    for index, node in enumerate(graph.node):
        wanted = FLOAT if index in single else FLOAT16
        for position, name in enumerate(node.input):
            if not _is_float(name, types, constants):
                continue
            needed = FLOAT if position in _SINGLE_INPUTS.get(node.op_type, ()) else wanted
            if name in constants:
                if needed == FLOAT16:
                    if name not in rounded_names:
                        rounded_names[name] = f"{name}_half"
                        too_large.extend(_add_rounded(graph.initializer, constants[name], rounded_names[name]))
                    node.input[position] = rounded_names[name]
            elif made_in[name] != needed:
                if (name, needed) not in casts:
                    casts[name, needed] = f"{name}_{'single' if needed == FLOAT else 'half'}"
                    nodes.append(
                        onnx_helper.make_node(
                            "Cast", [name], [casts[name, needed]], name=f"cast_{casts[name, needed]}", to=needed
                        )
                    )
                node.input[position] = casts[name, needed]
        if wanted == FLOAT16:
            _retype(node)
        nodes.append(node)
    if too_large:
        raise UserError(
            f"{len(too_large)} weights exceed {_LARGEST:g}, the largest number of half precision, such as in "
            f"{too_large[0]!r}: this network cannot be exported as onnx_fp16; use onnx_fp32 or bf16 in OpenVINO"
        )
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer]
    ordered = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    used = {name for node in ordered for name in node.input}
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(ordered)
    graph.initializer.extend(tensor for tensor in kept if tensor.name in used)
    return converted


def _single_nodes(nodes: Sequence[NodeProto]) -> set[int]:
    """Positions of the nodes that stay in float32.

    Those that prepare the image, logits to confidence, and the scores of an attention with their softmax: products over
    hundreds of channels that leave the range of half precision before they are scaled.
    """
    single: set[int] = set()
    prepared = {INPUT_NAME}
    for index, node in enumerate(nodes):
        if node.op_type in ("Cast", "Sub", "Div", "Mul") and node.input[0] in prepared:
            single.add(index)
            prepared.update(node.output)
    scores: set[str] = set()
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node.op_type == "Softmax":
            single.add(index)
            scores.add(node.input[0])
        elif scores & set(node.output) and node.op_type in ("Mul", "Div", "MatMul"):
            single.add(index)
            if node.op_type != "MatMul":
                scores.update(node.input)
    needed = {CONFIDENCE_NAME}
    for index in reversed(range(len(nodes))):
        if needed & set(nodes[index].output) and LOGITS_NAME not in nodes[index].output:
            single.add(index)
            needed.update(nodes[index].input)
    return single


def _normalised_sums(nodes: Sequence[NodeProto], constants: Collection[str]) -> set[int]:
    """Positions of the nodes of linear attention that stay in float32: its products, and their division by their sum.

    Each product sums over all positions of an image before the division by a sum over as many (Cai et al. 2023,
    "EfficientViT", equation 2): at the sizes that segmentation works at, it leaves the range of half precision. timm
    computes it in float32 as well. Told by the division: of one computed tensor by another.
    """
    single: set[int] = set()
    sums: set[str] = set()
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        computed = not any(name in constants for name in node.input)
        summed = not sums.isdisjoint(node.output)
        divides, multiplies = (computed and node.op_type == operator for operator in ("Div", "MatMul"))
        if divides or (summed and (multiplies or node.op_type in ("Add", "Slice"))):
            single.add(index)
            sums.update(node.input)
    return single


def _is_float(name: str, types: Mapping[str, TensorType], constants: dict[str, TensorProto]) -> bool:
    return name in constants or (name in types and types[name].dtype == FLOAT)


def _add_rounded(initializers: MutableSequence[TensorProto], tensor: TensorProto, name: str) -> list[str]:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    initializers.append(numpy_helper.from_array(rounded, name))
    return [tensor.name] if (np.isinf(rounded) & np.isfinite(values)).any() else []


def _retype(node: NodeProto) -> None:
    """Let a node that makes float32 by an attribute make float16."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == FLOAT:
            attribute.i = FLOAT16
        elif attribute.name == "value" and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
