"""Which tensor of a shipped graph is which of the network: by the module that made it and the place in the graph."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from export.graph.deploy import INPUT_NAME

# Nodes that hand their first input on: rounded or in another type.
_TRANSPARENT = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
# Activations that a quantiser leaves out, because the range of the rounded tensor already ends where they cut.
_OMITTED = frozenset({"Clip", "Relu"})
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# What runtimes fuse with an INT8 layer: made visible, the tensor between the two would be computed by another kernel.
_FUSED = frozenset({"Add", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid"})
_MOST_STRANGERS = 4  # nodes in a row that the network does not have, and may still be passed over

_SCOPES = "pkg.torch.onnx.name_scopes"
# What the deployed graph does around the network, by operator.
_AROUND = {
    "ArgMax": "argmax", "Cast": "cast of the image", "Div": "normalisation", "Mul": "normalisation",
    "Resize": "upsampling", "Sub": "normalisation", "Transpose": "transposition of the image",
}  # fmt: skip


@dataclass(frozen=True)
class TensorPair:
    """One tensor of the network as exported anew, and what stands in its place in the shipped graph.

    Attributes:
        expected: name in the graph exported anew.
        found: name in the shipped graph, of the tensor as the next operator reads it: after rounding to INT8 and back,
            and after whatever else stands between.
        layer: path of the module that makes it, as in the segmentor's `state_dict`, or what the deployed graph does.
        parents: positions, in the same sequence, of the nearest tensors that it is computed from.
    """

    expected: str
    found: str
    layer: str
    parents: tuple[int, ...]


def match(reference: ModelProto, shipped: ModelProto) -> list[TensorPair]:
    """Pair the floating-point tensors of both graphs, in the order in which the reference computes them.

    Both graphs are walked from the outputs of equal names backwards, input by input. Where the operators differ, nodes
    of the shipped graph that hand their input on are passed over, then a few that the network does not have, and
    activations of the network that the shipped graph may lack. Names of inner tensors play no part.

    Args:
        reference: of `named_model`: its nodes tell by their metadata where they come from.
        shipped: the graph in question.
    """
    ours, theirs = _Graph(reference), _Graph(shipped)
    shared = {output.name for output in shipped.graph.output}
    pending = [(output.name, output.name) for output in reference.graph.output if output.name in shared]
    found: dict[str, str] = {}
    while pending:
        expected, name = pending.pop()
        if expected in found or expected not in ours.producers:
            continue
        found[expected] = name
        if (pair := _aligned(ours, expected, theirs, name)) is not None:
            inputs = zip(pair[0].input, pair[1].input, strict=False)
            pending.extend((a, b) for a, b in inputs if a in ours.active and b in theirs.active)
    return list(_in_order(ours, theirs, found))


class _Graph:
    """A graph's nodes by what they make, and what depends on the image."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: Sequence[NodeProto] = model.graph.node
        self.producers: Mapping[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        self.active = {INPUT_NAME}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
            if self.active & set(node.input):
                self.active.update(node.output)
        self._dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}

    def kind(self, node: NodeProto) -> tuple[str, tuple[int, ...]]:
        """Operator, and for a layer the shape of its weights, through their rounding."""
        if node.op_type not in _LAYERS or len(node.input) < 2:
            return node.op_type, ()
        name = node.input[1]
        while name not in self._dims and (made := self.producers.get(name)) is not None and made.input:
            if made.op_type not in _TRANSPARENT:
                break
            name = made.input[0]
        return node.op_type, self._dims.get(name, ())

    def sources(self, node: NodeProto) -> Iterator[NodeProto]:
        """The nodes that make its active inputs."""
        return (self.producers[name] for name in node.input if name in self.active and name in self.producers)

    def hidden(self, name: str) -> bool:
        """Whether making a tensor visible would take an INT8 kernel apart."""
        node, readers = self.producers.get(name), self.readers.get(name, [])
        if node is None or node.op_type not in _LAYERS:
            return False
        rounded = any(source.op_type == "DequantizeLinear" for source in self.sources(node))
        return rounded and len(readers) == 1 and readers[0].op_type in _FUSED


def _aligned(ours: _Graph, expected: str, theirs: _Graph, name: str) -> tuple[NodeProto, NodeProto] | None:
    """The nodes that make both tensors, with the fewest nodes passed over; None where no two are alike."""
    if name not in theirs.producers:
        return None
    wanted: list[NodeProto] = [ours.producers[expected]]
    while wanted[-1].op_type in _OMITTED and (source := next(ours.sources(wanted[-1]), None)) is not None:
        wanted.append(source)
    kinds = {ours.kind(node): node for node in reversed(wanted)}
    pending = deque([(0, theirs.producers[name])])
    while pending:
        strangers, node = pending.popleft()
        if (own := kinds.get(theirs.kind(node))) is not None:
            return own, node
        if node.op_type in _TRANSPARENT:
            pending.extendleft((strangers, source) for source in theirs.sources(node))
        elif node.op_type not in _LAYERS and strangers < _MOST_STRANGERS:
            pending.extend((strangers + 1, source) for source in theirs.sources(node))
    return None


def _in_order(ours: _Graph, theirs: _Graph, found: Mapping[str, str]) -> Iterator[TensorPair]:
    positions: dict[str, int] = {}
    origins: dict[str, frozenset[str]] = {}  # tensor -> the nearest paired tensors that it is computed from
    for node in ours.nodes:
        nearest = frozenset[str]()
        for name in node.input:
            nearest |= frozenset({name}) if name in positions else origins.get(name, frozenset())
        for name in node.output:
            if name in found and not theirs.hidden(found[name]) and node.op_type not in ("ArgMax", "Round"):
                if found[name] not in theirs.producers or name in _masks(ours):
                    continue
                positions[name] = len(positions)
                parents = tuple(sorted(positions[each] for each in nearest))
                yield TensorPair(name, found[name], layer_of(node), parents)
            else:
                origins[name] = nearest


def _masks(graph: _Graph) -> set[str]:
    """Results in whole numbers, which are compared as classes elsewhere."""
    return {name for name in graph.producers if name not in graph.readers}


def layer_of(node: NodeProto) -> str:
    """The module of the network that a node of `named_model` comes from, or what the deployed graph does with it."""
    scopes = next((ast.literal_eval(each.value) for each in node.metadata_props if each.key == _SCOPES), [""])
    path = str(scopes[-2]) if len(scopes) > 1 else ""
    if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1].endswith(".weight"):
        path = node.input[1].removesuffix(".weight")  # a folded batch normalisation leaves its own path in the metadata
    return path.removeprefix("segmentor.") or _AROUND.get(node.op_type, f"{node.op_type} of the deployed graph")
