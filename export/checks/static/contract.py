"""Does the file keep the contract: uint8 image in, uint8 mask out, every batch and size?"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import TensorProto, ValueInfoProto

from export.checks.examination.context import CheckContext, CheckResult
from serving.contract.manifest import InputSpec, OutputSpec


def check(context: CheckContext) -> CheckResult:
    """Names, element types, ranks and dynamic axes of input and outputs, in the manifest and in the graph."""
    manifest, model = context.manifest, context.model
    problems: list[str] = []
    expected_input = InputSpec(stride=manifest.input.stride, resize=manifest.input.resize)
    if manifest.input != expected_input:
        problems.append(f"the manifest's input is {manifest.input}, expected {expected_input}")
    expected_outputs = {
        "mask": OutputSpec("mask", "mask", "NHW", "uint8"),
        "confidence": OutputSpec("confidence", "confidence", "NHW", "uint8"),
    }
    problems.extend(
        f"the manifest has the output {output}; expected a mask and, where asked for, a confidence"
        for output in manifest.outputs
        if output != expected_outputs.get(output.name)
    )
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    wanted_inputs = {manifest.input.name: ("?", "?", "?", 3)}
    wanted_outputs = {output.name: ("?", "?", "?") for output in manifest.outputs}
    problems.extend(_io_problems("input", inputs, wanted_inputs))
    problems.extend(_io_problems("output", list(model.graph.output), wanted_outputs))
    detail = "; ".join(problems) or "uint8 [batch,height,width,3] -> uint8 [batch,height,width], all dynamic"
    return CheckResult.decided(not problems, len(problems), 0, "problems", detail)


def _io_problems(role: str, values: list[ValueInfoProto], wanted: Mapping[str, tuple[str | int, ...]]) -> list[str]:
    problems: list[str] = []
    names = [value.name for value in values]
    if sorted(names) != sorted(wanted):
        problems.append(f"the graph has the {role}s {', '.join(names)}; the manifest names {', '.join(wanted)}")
    for value in values:
        if value.name not in wanted:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.UINT8:
            problems.append(f"{role} {value.name!r} is {TensorProto.DataType.Name(tensor.elem_type)}, expected UINT8")
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim]
        fits = len(dims) == len(wanted[value.name]) and all(
            isinstance(found, str) if want == "?" else found == want
            for found, want in zip(dims, wanted[value.name], strict=True)
        )
        if not fits:
            problems.append(
                f"{role} {value.name!r} has the axes {dims}; expected {len(wanted[value.name])}, of which batch, "
                "height and width are dynamic"
            )
    return problems
