"""Does the engine compute in the precision that was asked for?

A file called fp16 may hold a graph in single precision, and a runtime may compute in another precision than it was
told: nothing else notices, since such engines give correct masks. Counted are the layers with weights, where the time
goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import ModelProto, TensorProto

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.graph.costs import infer_types
from export.targets.limits import precision_limits

NAME = "precision"

_ONNX_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_ONNX_NAMES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def check(context: CheckContext) -> CheckResult:
    """The share of the layers that compute in the precision asked for."""
    asked = context.precision
    counts, source = layer_precisions(context)
    total = sum(counts.values())
    if not total:
        return CheckResult.decided(NAME, False, 0.0, None, "", f"{source}: no layer with weights was found")
    kept = kept_in_float(context) if asked == "int8" else 0
    judged = max(total - kept, 1)
    share = min(counts.get(asked, 0) / judged, 1.0)
    limits = precision_limits().get(asked)
    smallest = limits.min_layer_share if limits else 1.0
    listed = ", ".join(f"{count} {precision}" for precision, count in counts.items())
    detail = f"asked for {asked}; {source}: {listed} of {total} layers"
    if kept:
        detail += f", {kept} of them kept in float on purpose"
    if counts.get(asked, 0) and not context.engine.computes_in(asked):
        detail += f"; the runtime has no {asked} kernels here and computes these in single precision"
    # Judged is what lies above the limit: `measured` passes when it is at most `threshold`.
    return CheckResult.decided(
        NAME, share >= smallest, 1 - share, round(1 - smallest, 4), "of the layers in another precision", detail
    )


def measured_precision(context: CheckContext) -> str:
    """The precision that most layers compute in, for the report."""
    counts, _ = layer_precisions(context)
    most = max(counts, key=lambda precision: counts[precision])
    return most if context.engine.computes_in(most) else f"{most} weights, computed in fp32"


def layer_precisions(context: CheckContext) -> tuple[dict[str, int], str]:
    """(precision -> number of layers, where that is from): the nearest to what runs that the runtime shows."""
    told = context.engine.layer_precisions()
    if told is not None:
        return told
    if context.manifest.kind == "onnx":
        counts = graph_layers(context.model, context.manifest.input.stride)
        if context.engine.told_precision() == "tf32":
            counts = {"tf32" if name == "fp32" else name: count for name, count in counts.items()}
        return counts, "ONNX graph"
    raise SkippedError(f"neither the runtime nor this {context.manifest.kind} engine tells its layers' precisions")


def graph_layers(model: ModelProto, stride: int) -> dict[str, int]:
    """Layers with weights by precision: `int8` where both activation and weight come from a DequantizeLinear."""
    types = infer_types(model, (1, 2 * stride, 3 * stride, 3))
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type not in _ONNX_LAYERS:
            continue
        if all(producers.get(name) == "DequantizeLinear" for name in node.input[:2]):
            counts["int8"] += 1
            continue
        first = node.input[0]
        dtype = constants[first] if first in constants else types[first].dtype
        counts[_ONNX_NAMES.get(dtype, TensorProto.DataType.Name(dtype).lower())] += 1
    return dict(counts)


def kept_in_float(context: CheckContext) -> int:
    """Number of layers that the exporter kept in float, as the manifest says."""
    quantisation = context.manifest.details.get("quantisation")
    kept = quantisation.get("kept_in_float", ()) if isinstance(quantisation, Mapping) else ()
    return len(kept)
