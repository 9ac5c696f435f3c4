"""The structure of an ONNX graph: what it computes apart from the learned values.

Two graphs have the same structure when they run the same operators with the same attributes on tensors of the same
shapes, wired in the same way: then they cost the same on any runtime, whatever their weights are. The canonical form is
exact and independent of names, node order and the way defaults are written. Every value has one producer and the inputs
of a node and the outputs of a graph are ordered, so numbering nodes in depth-first post-order from the graph outputs
leaves no choice: equal canonical forms mean isomorphic graphs, and isomorphic graphs have equal forms. (Only nodes that
no output needs have no such order; they are sorted by what they compute, and the hygiene check forbids them anyway.)

Operands of commutative operators are not swapped: an exporter that writes `x + y` once writes it so again.

By hand, since a certificate rests on it: what onnx and onnx_ir compare of graphs is subject to names, order and values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner, numpy_helper
from onnx import helper as onnx_helper

# Inputs of an operator that say what it does rather than hold what was learned, beside everything integer or boolean
# (axes, shapes, indices, pads): the scales of Resize and the bounds of Clip change the computation, a bias does not.
STRUCTURAL_INPUTS: Mapping[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}),
    "Dropout": frozenset({1, 2}),
    "OneHot": frozenset({1, 2}),
    "Pad": frozenset({1, 2, 3}),
    "Pow": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "Upsample": frozenset({1}),
}
# Operators whose integer inputs are quantised weights, biases and zero points: learned, so compared by shape only.
QUANTISED_OPERATORS = frozenset(
    {"ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"}
)
_STRUCTURAL_DTYPES = frozenset(
    {TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64, TensorProto.STRING}
)
_SHOWN_ELEMENTS = 16  # longer structural constants are compared by hash


@dataclass(frozen=True)
class Constant:
    """An initializer, or the value of a Constant node.

    Attributes:
        dtype: ONNX's name of the element type, such as "FLOAT".
        shape: dimensions; `()` for a scalar.
        value: text or hash of the value where it is part of the structure, else None (a weight).
        name: its name in the file, for messages; not compared.
    """

    dtype: str
    shape: tuple[int, ...]
    value: str | None
    name: str = field(compare=False)

    def __str__(self) -> str:
        text = f"{self.dtype.lower()}[{','.join(map(str, self.shape))}]"
        return text if self.value is None else f"{text} = {self.value}"


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        operator: `OpType`, with `domain::` before it outside the default domain.
        attributes: (name, text of the value), sorted, defaults filled in.
        inputs: references: "input i", "node i", "node i output k" (k > 0), "constant i", "captured i", "omitted".
        outputs: number of outputs.
        name: name of its first output in the file, for messages; not compared.
    """

    operator: str
    attributes: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    outputs: int
    name: str = field(compare=False)


@dataclass(frozen=True)
class CanonicalGraph:
    """The structure of a graph, equal for isomorphic graphs.

    Attributes:
        opsets: (domain, version), sorted.
        inputs: (name, type and shape) in order: names of io are part of the contract.
        outputs: (name, type and shape, reference) in order.
        constants: in order of first use, then those that nothing reads.
        nodes: in depth-first post-order from the outputs, then those that no output needs.
        needed: how many of `nodes` an output needs.
        needed_constants: how many of `constants` an output needs.
        captured: names of outer values that a subgraph reads, in order of first use; empty for a whole model.
    """

    opsets: tuple[tuple[str, int], ...]
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    needed: int
    needed_constants: int
    captured: tuple[str, ...] = field(default=(), compare=False)

    def sha256(self) -> str:
        """Hash of the structure, as hex."""
        content = dataclasses.asdict(self)
        content["captured"] = len(self.captured)
        for item in (*content["constants"], *content["nodes"]):
            del item["name"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def canonical(model: ModelProto) -> CanonicalGraph:
    """The canonical form of a model; its local functions are inlined first.

    Raises:
        ValueError: the graph is not acyclic and in single-assignment form, or reads a value that nothing gives.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    graph = _Canonicaliser(model.graph, opsets).run()
    if graph.captured:
        raise ValueError(f"the graph reads values that nothing gives: {', '.join(graph.captured)}")
    return graph


class _Canonicaliser:
    """Numbers the nodes, constants and captured values of one graph."""

    def __init__(self, graph: GraphProto, opsets: Mapping[str, int]) -> None:
        self.graph = graph
        self.opsets = opsets
        self.tensors: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.tensors |= {tensor.values.name: tensor.values for tensor in graph.sparse_initializer}
        self.producers: dict[str, tuple[NodeProto, int]] = {}
        for node in graph.node:
            tensor = _constant_value(node)
            if tensor is not None:
                self.tensors[node.output[0]] = tensor
                continue
            if not any(node.output):
                raise ValueError(f"a node {node.op_type} {node.name!r} gives nothing")
            for position, name in enumerate(node.output):
                if name and name in self.producers:
                    raise ValueError(f"two nodes give the value {name!r}: not in single-assignment form")
                if name:
                    self.producers[name] = (node, position)
        uses = [(node.op_type, position, name) for node in graph.node for position, name in enumerate(node.input)]
        quantised = {name for operator, _, name in uses if operator in QUANTISED_OPERATORS}
        self.structural = {
            name
            for name, tensor in self.tensors.items()
            if tensor.data_type in _STRUCTURAL_DTYPES and name not in quantised
        } | {name for operator, position, name in uses if position in STRUCTURAL_INPUTS.get(operator, ())}
        self.references: dict[str, str] = {}
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.captured: list[str] = []

        # An initializer may have an input of the same name (its default, in old files): it is then no real input.
        self.inputs = [value for value in graph.input if value.name not in self.tensors]
        for i, value in enumerate(self.inputs):
            self.references[value.name] = f"input {i}"

    def run(self) -> CanonicalGraph:
        """Number the whole graph, what its outputs need first."""
        outputs = []
        for value in self.graph.output:
            self._visit(value.name)
            outputs.append((value.name, _type_text(value), self.references[value.name]))
        needed, needed_constants = len(self.nodes), len(self.constants)
        self._visit_unneeded()
        return CanonicalGraph(
            opsets=tuple(sorted((domain or "ai.onnx", version) for domain, version in self.opsets.items())),
            inputs=tuple((value.name, _type_text(value)) for value in self.inputs),
            outputs=tuple(outputs),
            constants=tuple(self.constants),
            nodes=tuple(self.nodes),
            needed=needed,
            needed_constants=needed_constants,
            captured=tuple(self.captured),
        )

    def _visit_unneeded(self) -> None:
        rest = [node for node in self.graph.node if _constant_value(node) is None and not self._numbered(node)]
        read = {name for node in rest for name in node.input}
        ends = [node for node in rest if not any(name in read for name in node.output)]
        for node in (*sorted(ends, key=self._what_it_computes), *rest):
            if not self._numbered(node):
                self._visit(next(name for name in node.output if name))
        unread = [(tensor.data_type, list(tensor.dims), name) for name, tensor in self.tensors.items()]
        for _, _, name in sorted(unread):
            self._visit(name)

    def _what_it_computes(self, node: NodeProto) -> str:
        alone = _Canonicaliser(self.graph, self.opsets)
        alone._visit(next(name for name in node.output if name))
        return str(
            ([dataclasses.replace(item, name="") for item in alone.nodes], [str(item) for item in alone.constants])
        )

    def _numbered(self, node: NodeProto) -> bool:
        return any(name in self.references for name in node.output if name)

    def _visit(self, root: str) -> None:
        """Number everything that the value `root` depends on, without recursion: networks are deeper than the stack."""
        stack = [root]
        waiting = set(stack)
        while stack:
            name = stack[-1]
            if name in self.references:
                waiting.discard(stack.pop())
                continue
            if name not in self.producers:
                self._number_leaf(name)
                continue
            node = self.producers[name][0]
            subgraphs = {
                attribute.name: _Canonicaliser(attribute.g, self.opsets).run()
                for attribute in node.attribute
                if attribute.type == AttributeProto.GRAPH
            }
            captured = [value for graph in subgraphs.values() for value in graph.captured]
            pending = [value for value in (*node.input, *captured) if value and value not in self.references]
            if not pending:
                self._number_node(node, subgraphs, captured)
                continue
            if pending[0] in waiting:
                raise ValueError(f"the value {pending[0]!r} depends on itself: the graph is not acyclic")
            stack.append(pending[0])
            waiting.add(pending[0])

    def _number_leaf(self, name: str) -> None:
        tensor = self.tensors.get(name)
        if tensor is None:
            self.references[name] = f"captured {len(self.captured)}"
            self.captured.append(name)
            return
        self.references[name] = f"constant {len(self.constants)}"
        value = _value_text(tensor) if name in self.structural else None
        self.constants.append(Constant(TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims), value, name))

    def _number_node(self, node: NodeProto, subgraphs: Mapping[str, CanonicalGraph], captured: list[str]) -> None:
        index = len(self.nodes)
        inputs = [self.references[value] if value else "omitted" for value in (*node.input, *captured)]
        while inputs and inputs[-1] == "omitted":  # a trailing "" and nothing are the same
            inputs.pop()
        outputs = [value for value in node.output if value]
        operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        attributes = _attributes(node, self.opsets, subgraphs)
        self.nodes.append(Node(operator, attributes, tuple(inputs), len(outputs), outputs[0]))
        for position, value in enumerate(node.output):
            if value:
                self.references[value] = f"node {index} output {position}" if position else f"node {index}"


def _constant_value(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node, else None: such a node is an initializer written another way."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    value = onnx_helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return value
    dtypes: dict[str, type[Any]] = {"value_int": np.int64, "value_ints": np.int64}
    dtypes |= {"value_float": np.float32, "value_floats": np.float32}
    if attribute.name not in dtypes:
        return None
    return numpy_helper.from_array(np.asarray(value, dtypes[attribute.name]))


def _value_text(tensor: TensorProto) -> str:
    array = numpy_helper.to_array(tensor)
    if array.size <= _SHOWN_ELEMENTS:
        return str(array.tolist())
    content = json.dumps(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).tobytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _attributes(
    node: NodeProto, opsets: Mapping[str, int], subgraphs: Mapping[str, CanonicalGraph]
) -> tuple[tuple[str, str], ...]:
    values = {}
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:  # an operator of another domain: its defaults are not known
        schema = None
    if schema is not None:
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                values[name] = _attribute_text(attribute.default_value)
    for attribute in node.attribute:
        subgraph = subgraphs.get(attribute.name)
        values[attribute.name] = f"graph {subgraph.sha256()}" if subgraph is not None else _attribute_text(attribute)
    return tuple(sorted(values.items()))


def _attribute_text(attribute: AttributeProto) -> str:
    value = onnx_helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return f"{TensorProto.DataType.Name(value.data_type)}{list(value.dims)} = {_value_text(value)}"
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, (int, float, str)):
        return repr(value)
    if isinstance(value, GraphProto):
        return "graph"
    return str([item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else item for item in value])


def _type_text(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return value.type.WhichOneof("value") or "unknown"
    dims = [dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in tensor.shape.dim]
    shape = f"[{','.join(dims)}]" if tensor.HasField("shape") else "[...]"
    return f"{TensorProto.DataType.Name(tensor.elem_type).lower()}{shape}"
