"""What ONNX Runtime really executes: every kernel of one run with its provider and types, from the session's profile.

What a session is asked for and what its file says are both weaker: a node without a kernel on a provider goes to
another one in silence, and casts are put around nodes that a provider has in another precision only.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PRECISIONS = {
    "float": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "double": "fp64",
    "int8": "int8",
    "uint8": "int8",
}
_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")  # also FusedConv, NhwcFusedConv, QLinearConv, ConvTranspose, FusedMatMul...
# Providers leave arithmetic on shapes to the CPU on purpose. A shape has few elements; the pads of four axes are eight.
_OF_SHAPES = ("Shape", "Size")
_ELEMENTS_OF_A_SHAPE = 8


@dataclass(frozen=True)
class Kernel:
    """One node as it was executed.

    Attributes:
        name: of the node; fused and inserted ones have names of ONNX Runtime's.
        operator: its type.
        provider: execution provider that ran it.
        precision: of its first input, as manifests name it; ONNX Runtime's own name for other types.
        computes: whether it works on images or features, as opposed to shapes.
        of_activations: whether everything that it reads was computed, as in the products of attention. A weight that
            was packed when the session opened is no input any more.
    """

    name: str
    operator: str
    provider: str
    precision: str
    computes: bool
    of_activations: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether it is one of the layers where the time goes."""
        return any(kind in self.operator for kind in _WITH_WEIGHTS) and not self.of_activations


def read_profile(path: Path) -> list[Kernel]:
    """The kernels in a profile that `InferenceSession.end_profiling` wrote, in the order of their execution."""
    events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    suffix = "_kernel_time"
    return [
        _kernel(event["name"].removesuffix(suffix), event["args"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(suffix)
    ]


def _kernel(name: str, args: dict[str, Any]) -> Kernel:
    inputs: list[dict[str, list[int]]] = args.get("input_type_shape", [])
    outputs: list[dict[str, list[int]]] = args.get("output_type_shape", [])
    sizes = [math.prod(shape) for tensor in (*inputs, *outputs) for shape in tensor.values()]
    first = next(iter(inputs[0]), "") if inputs else ""
    operator = args["op_name"]
    return Kernel(
        name=name,
        operator=operator,
        provider=args["provider"],
        precision=_PRECISIONS.get(first, first),
        of_activations="MatMul" in operator and len(inputs) > 1 and int(args.get("parameter_size", -1)) == 0,
        computes=operator not in _OF_SHAPES and max(sizes, default=0) > _ELEMENTS_OF_A_SHAPE,
    )


def layers_by_precision(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Layers with weights by the precision that they computed in: precision -> number."""
    return dict(Counter(kernel.precision for kernel in kernels if kernel.has_weights))


def computed_elsewhere(kernels: Iterable[Kernel], provider: str) -> list[str]:
    """The nodes that computed on another provider than `provider`, each as `Resize (name) on CPUExecutionProvider`."""
    return [
        f"{kernel.operator} ({kernel.name}) on {kernel.provider}"
        for kernel in kernels
        if kernel.computes and kernel.provider != provider
    ]


def assigned_nodes(subgraphs: Sequence[Any], provider: str) -> dict[str, object]:
    """Where ONNX Runtime put the nodes of a session.

    Args:
        subgraphs: what `InferenceSession.get_provider_graph_assignment_info` gives.
        provider: that was asked for.

    Returns:
        `nodes`: provider -> number; `nodes_elsewhere`: operator -> number, of those that another provider got.
    """
    placed = [(subgraph.ep_name, node.op_type) for subgraph in subgraphs for node in subgraph.get_nodes()]
    elsewhere = Counter(operator for name, operator in placed if name != provider)
    return {
        "nodes": dict(Counter(name for name, _ in placed)),
        "nodes_elsewhere": dict(sorted(elsewhere.items())),
    }
