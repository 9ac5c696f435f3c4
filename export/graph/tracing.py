"""From the deploy graph in PyTorch to an ONNX graph with dynamic batch, height and width."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto
from onnx import helper as onnx_helper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from export.graph.costs import TensorType, infer_types
from export.graph.deploy import CONFIDENCE_NAME, INPUT_NAME, MASK_NAME, DeployGraph
from export.graph.passes import scale_resizes, set_io, settle_reshapes

OPSET = 18
# Traced at sizes that share no factor beyond the stride, so that a size baked into the graph fits no other by accident.
TRACED = (2, 5, 7)  # batch; height and width in strides
PROBED = ((1, 1, 1), (3, 3, 11), (2, 8, 2))  # likewise, where the generalised graph is tried

# Operators whose result at any batch, height and width follows from their attributes and constants, where these hold no
# size. Padding, slicing and reshaping are absent on purpose: their amounts may have been computed from the traced size.
# Padding is taken where it is seen to be the same at every size (`pads_alike`).
SIZE_FREE = frozenset(
    {
        "Add", "ArgMax", "AveragePool", "Cast", "Clip", "Concat", "Conv", "Div", "Erf", "Exp", "Gelu",
        "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "Neg", "PRelu",
        "Reciprocal", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Resize", "Round", "Sigmoid", "Softmax", "Sqrt",
        "Sub", "Tanh", "Transpose",
    }
)  # fmt: skip


def trace(graph: DeployGraph) -> ModelProto:
    """The ONNX graph of `graph` at any batch, height and width.

    Tracing with symbolic sizes takes several times as long as with fixed ones and leaves arithmetic on shapes in the
    graph. Most networks do not need it: where every operator works at any size, the graph traced at one size is the
    graph of all. That is proven, not assumed (`generalised`); other networks are traced with symbols.
    """
    stride = graph.segmentor.stride
    traced = _export(graph, symbolic=False)
    padded = any(node.op_type == "Pad" for node in traced.graph.node)
    model = generalised(traced, stride, pads_free=padded and pads_alike(graph))
    if model is None:
        model = _export(graph, symbolic=True)
        shapes = [(batch, rows * stride, columns * stride, 3) for batch, rows, columns in PROBED]
        probes = [infer_types(model, shape) for shape in shapes]
        scale_resizes(model, probes)
        settle_reshapes(model, probes)
        set_io(model)
    return model


class _Pads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes by how much what runs below it pads."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[str, str]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if "pad" in str(function):
            rest = [each for each in args if not isinstance(each, Tensor)]
            self.found.append((str(function), repr((rest, kwargs))))
        return function(*args, **(kwargs or {}))


def pads_alike(graph: DeployGraph) -> bool:
    """Whether a network pads by the same amounts, in the same order, at the traced size and at every probed one."""
    found = []
    for batch, rows, columns in (TRACED, *PROBED):
        stride = graph.segmentor.stride
        with torch.no_grad(), _Pads() as pads:
            graph(torch.zeros(batch, rows * stride, columns * stride, 3, dtype=torch.uint8))
        found.append(pads.found)
    return all(each == found[0] for each in found)


def generalised(model: ModelProto, stride: int, *, pads_free: bool = False) -> ModelProto | None:
    """A graph traced at the size `TRACED`, made right for every other; None where that is not certain.

    No operator may hold a size, every Resize must scale by whole numbers, and the shapes must follow through the whole
    graph at other sizes as well (a constant with a size in it does not broadcast there).

    Args:
        model: the traced graph; left as it is.
        stride: height and width are multiples of it.
        pads_free: whether the amounts of paddings are known not to depend on the size.
    """
    free = SIZE_FREE | {"Pad"} if pads_free else SIZE_FREE
    if any(node.op_type not in free or node.domain not in ("", "ai.onnx") for node in model.graph.node):
        return None
    batch, rows, columns = TRACED
    types = infer_types(model, (batch, rows * stride, columns * stride, 3))
    if any(_pools_everything(node, types) for node in model.graph.node):
        return None
    general = ModelProto()
    general.CopyFrom(model)
    set_io(general)
    if not scale_resizes(general, [types]):
        return None
    for batch, rows, columns in PROBED:
        height, width = rows * stride, columns * stride
        try:
            found = infer_types(general, (batch, height, width, 3), strict=True)
        except onnx.shape_inference.InferenceError:
            return None
        expected = TensorType(TensorProto.UINT8, (batch, height, width))
        if any(found.get(output.name) != expected for output in general.graph.output):
            return None
    return general


def _pools_everything(node: NodeProto, types: Mapping[str, TensorType]) -> bool:
    """Whether a pooling window is as large as what it pools: a global pooling whose size was baked in."""
    if node.op_type not in ("AveragePool", "MaxPool"):
        return False
    kernel = next(onnx_helper.get_attribute_value(item) for item in node.attribute if item.name == "kernel_shape")
    pooled = types[node.input[0]].shape[2:]
    return any(size >= extent for size, extent in zip(kernel, pooled, strict=True))


def _export(graph: DeployGraph, *, symbolic: bool) -> ModelProto:
    batch, rows, columns = TRACED
    stride = graph.segmentor.stride
    example = torch.zeros(batch, rows * stride, columns * stride, 3, dtype=torch.uint8)
    sizes = None
    if symbolic:
        most = math.isqrt(2**31 // stride) // stride
        sizes = {
            0: torch.export.Dim("batch", min=1, max=1024),
            1: stride * torch.export.Dim("rows", min=1, max=most),
            2: stride * torch.export.Dim("columns", min=1, max=most),
        }
    names = [MASK_NAME] if graph.output == "mask" else [MASK_NAME, CONFIDENCE_NAME]
    return export_program(graph, example, names, sizes)


def export_program(
    module: nn.Module, example: Tensor, output_names: Sequence[str], sizes: dict[int, Any] | None = None
) -> ModelProto:
    """Trace a module that takes images, as PyTorch's exporter gives it.

    Args:
        module: in evaluation mode.
        example: `[B,h,w,3]` uint8.
        output_names: of its outputs, in order.
        sizes: the example's axes whose sizes stay open, as `torch.export` names them; None fixes all.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # torch.export copies pytree specs in a way that its own next release deprecates: nothing that we can change.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=(sizes,) if sizes else None,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(output_names),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto
