"""Comparing ONNX graphs by structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import ModelProto

from export.graph.canonical import CanonicalGraph, Node, canonical


def structure_sha256(model: ModelProto) -> str:
    """Hash of the structure of a model: equal for graphs that differ in names, node order and weights only."""
    return canonical(model).sha256()


def first_difference(a: ModelProto | CanonicalGraph, b: ModelProto | CanonicalGraph) -> str | None:
    """The first difference between two structures in words, the first graph's side named first; None when identical.

    Example:
        >>> from onnx import parser
        >>> head = '<ir_version: 10, opset_import: ["" : 18]>'
        >>> graph = 'g (float[N] x) => (float[N] y) '
        >>> model = parser.parse_model(head + graph + '{ a = Abs(x)  y = Relu(a) }')
        >>> first_difference(model, parser.parse_model(head + graph + '{ b = Abs(x)  y = Relu(b) }'))
        >>> first_difference(model, parser.parse_model(head + graph + '{ y = Relu(x) }'))
        'node 0 of 2 (a against y): operator Abs against Relu'
    """
    first = a if isinstance(a, CanonicalGraph) else canonical(a)
    second = b if isinstance(b, CanonicalGraph) else canonical(b)
    if first == second:
        return None
    return next(_differences(first, second))


def unneeded_nodes(model: ModelProto) -> list[str]:
    """Nodes that no output needs, each as `OpType (name)`."""
    graph = canonical(model)
    return [f"{node.operator} ({node.name})" for node in graph.nodes[graph.needed :]]


def unused_initializers(model: ModelProto) -> list[str]:
    """Names of initializers that no output needs: never read, or read only by nodes that no output needs."""
    graph = canonical(model)
    used = {constant.name for constant in graph.constants[: graph.needed_constants]}
    names = [tensor.name for tensor in model.graph.initializer]
    names += [tensor.values.name for tensor in model.graph.sparse_initializer]
    return [name for name in names if name not in used]


def _differences(a: CanonicalGraph, b: CanonicalGraph) -> Iterator[str]:
    """Every difference between two canonical forms, the most telling first; at least one when they are not equal."""
    if a.opsets != b.opsets:
        yield f"operator sets: {_pairs(a.opsets)} against {_pairs(b.opsets)}"
    if a.inputs != b.inputs:
        yield f"graph inputs: {_pairs(a.inputs)} against {_pairs(b.inputs)}"
    if [output[:2] for output in a.outputs] != [output[:2] for output in b.outputs]:
        yield f"graph outputs: {_pairs(a.outputs)} against {_pairs(b.outputs)}"
    for index, (node, other) in enumerate(zip(a.nodes, b.nodes, strict=False)):
        yield from _node_differences(index, node, other, a, b)
    if len(a.nodes) != len(b.nodes):
        longer, index = (a, len(b.nodes)) if len(a.nodes) > len(b.nodes) else (b, len(a.nodes))
        extra = longer.nodes[index]
        yield (
            f"number of nodes: {len(a.nodes)} against {len(b.nodes)}; the {'first' if longer is a else 'second'} graph "
            f"goes on with {extra.operator} ({extra.name})"
        )
    if a.needed != b.needed:
        yield f"nodes that no output needs: {len(a.nodes) - a.needed} against {len(b.nodes) - b.needed}"
    for output, other_output in zip(a.outputs, b.outputs, strict=True):
        if output != other_output:
            yield f"output {output[0]!r} is {output[2]} against {other_output[2]}"
    yield f"constants: {len(a.constants)} against {len(b.constants)}"


def _node_differences(index: int, node: Node, other: Node, a: CanonicalGraph, b: CanonicalGraph) -> Iterator[str]:
    where = f"node {index} of {len(a.nodes)} ({node.name} against {other.name})"
    if node.operator != other.operator:
        yield f"{where}: operator {node.operator} against {other.operator}"
    if node.attributes != other.attributes:
        first, second = dict(node.attributes), dict(other.attributes)
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                yield f"{where}: {node.operator} attribute {name} is {first.get(name)} against {second.get(name)}"
    if len(node.inputs) != len(other.inputs):
        yield f"{where}: {node.operator} has {len(node.inputs)} inputs against {len(other.inputs)}"
    for position, (reference, other_reference) in enumerate(zip(node.inputs, other.inputs, strict=False)):
        first_text, second_text = _shown(reference, a), _shown(other_reference, b)
        if reference != other_reference or first_text != second_text:
            yield f"{where}: input {position} of {node.operator} is {first_text} against {second_text}"
    if node.outputs != other.outputs:
        yield f"{where}: {node.operator} has {node.outputs} outputs against {other.outputs}"


def _shown(reference: str, graph: CanonicalGraph) -> str:
    kind, _, index = reference.partition(" ")
    return f"{reference} ({graph.constants[int(index)]})" if kind == "constant" else reference


def _pairs(items: tuple[tuple[Any, ...], ...]) -> str:
    return ", ".join(" ".join(str(part) for part in item[:2]) for item in items)
