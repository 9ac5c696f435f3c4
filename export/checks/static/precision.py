"""Does the engine compute in the precision that was asked for?

A file called fp16 may hold a graph in single precision, and a runtime may compute in another precision than it was
told, or on another device: nothing else notices, since such engines give correct masks. Counted are the layers with
weights, where the time goes, as they are executed where the runtime tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from onnx import ModelProto, TensorProto

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.graph.costs import infer_types
from export.targets.limits import precision_limits

_ONNX_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_UNPACKING = ("Cast", "DequantizeLinear")  # what stands between a stored weight and its layer
_ONNX_NAMES = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.UINT8: "int8",
    TensorProto.UINT4: "int4",
    TensorProto.FLOAT8E4M3FN: "fp8",
}


def check(context: CheckContext) -> CheckResult:
    """The share of the layers that compute in the precision asked for, and every node on the device asked for."""
    asked = context.precision
    elsewhere = context.engine.computed_elsewhere()
    if elsewhere:
        listed = "; ".join(elsewhere[:5]) + ("; ..." if len(elsewhere) > 5 else "")
        detail = f"{len(elsewhere)} nodes compute elsewhere than asked for: {listed}"
        return CheckResult.decided(False, len(elsewhere), 0, "nodes elsewhere", detail)
    lacking = not context.engine.computes_in(asked)
    # A runtime without kernels of this precision computes in a higher one: then the file at least must be what it says.
    counts, source = _of_the_file(context) if lacking and context.manifest.kind == "onnx" else layer_precisions(context)
    total = sum(counts.values())
    if not total:
        return CheckResult.decided(False, 0.0, None, "", f"{source}: no layer with weights was found")
    kept = kept_in_float(context)
    judged = max(total - kept, 1)
    share = min(counts.get(asked, 0) / judged, 1.0)
    limits = precision_limits().get(asked)
    smallest = limits.min_layer_share if limits else 1.0
    listed = ", ".join(f"{count} {precision}" for precision, count in counts.items())
    detail = f"asked for {asked}; {source}: {listed} of {total} layers"
    if kept:
        detail += f", {kept} of them kept in float on purpose"
    if counts.get(asked, 0) and lacking:
        detail += f"; the runtime has no {asked} kernels here and computes these in single precision"
    # Judged is what lies above the limit: `measured` passes when it is at most `threshold`.
    return CheckResult.decided(
        share >= smallest, 1 - share, round(1 - smallest, 4), "of the layers in another precision", detail
    )


def measured_precision(context: CheckContext) -> str:
    """The precision that most layers compute in, for the report."""
    counts, _ = layer_precisions(context)
    most = max(counts, key=lambda precision: counts[precision])
    asked = context.precision
    if context.engine.computes_in(asked):
        return most
    return "fp32" if asked == "tf32" else f"{asked} weights, computed in fp32"


def layer_precisions(context: CheckContext) -> tuple[dict[str, int], str]:
    """(precision -> number of layers, where that is from): the nearest to what runs that the runtime shows."""
    told = context.engine.layer_precisions()
    if told is not None:
        return told
    if context.manifest.kind == "onnx":
        return _of_the_file(context)
    raise SkippedError(f"neither the runtime nor this {context.manifest.kind} engine tells its layers' precisions")


def _of_the_file(context: CheckContext) -> tuple[dict[str, int], str]:
    return graph_layers(context.model, context.manifest.input.stride), "ONNX graph"


def graph_layers(model: ModelProto, stride: int) -> dict[str, int]:
    """Layers with weights by precision: that of their activation, or what it was quantised to where the weight was too.

    A layer is quantised where both activation and weight come from a DequantizeLinear. A product of two activations, as
    in attention, has no weight and is no layer: exporters keep it in a higher precision on purpose.
    """
    types = infer_types(model, (1, 2 * stride, 3 * stride, 3))
    constants = {tensor.name for tensor in model.graph.initializer}
    weights = constants | {
        node.output[0] for node in model.graph.node if node.op_type in _UNPACKING and node.input[0] in constants
    }
    dequantised = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type not in _ONNX_LAYERS:
            continue
        if weights.isdisjoint(node.input[:2]):
            continue
        activation, weight = node.input[:2]
        quantised = activation in dequantised and weight in dequantised
        dtype = types[dequantised[activation] if quantised else activation].dtype
        counts[_ONNX_NAMES.get(dtype, TensorProto.DataType.Name(dtype).lower())] += 1
    return dict(counts)


def kept_in_float(context: CheckContext) -> int:
    """Number of layers that the exporter kept in float, as the manifest says."""
    quantisation = context.manifest.details.get("quantisation")
    kept = quantisation.get("kept_in_float", ()) if isinstance(quantisation, Mapping) else ()
    return len(kept)
