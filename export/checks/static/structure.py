"""Is the graph clean: only what the mask needs, nothing of the training, nothing of the machine?"""

from __future__ import annotations

import math
import re

import onnx
from onnx import ModelProto

from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.graph.structure import structure_sha256, unneeded_nodes, unused_initializers
from serving.contract.manifest import METADATA_KEY

_PATH = re.compile(r"(/[\w.\-]+){2,}\.py\b|[A-Za-z]:\\\\|File \"")


def check(context: CheckContext) -> CheckResult:
    """A valid graph without unneeded nodes, unused weights, batch norms, stack traces or weights outside the file."""
    model = context.model
    problems = structure_problems(model)
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    weights = sum(math.prod(tensor.dims) for tensor in floats)
    try:
        segmentor = context.reference.segmentor
    except SkippedError:
        pass  # then there is no telling how many weights it should have
    else:
        most = sum(tensor.numel() for tensor in (*segmentor.parameters(), *segmentor.buffers()))
        if weights > most:
            problems.append(f"{weights} weights in the graph, the stripped segmentor has {most}")
    named = context.manifest.details.get("structure_sha256")
    if named is not None and named != structure_sha256(model):
        problems.append("the graph is not the one whose structure the manifest names")
    detail = "; ".join(problems) or f"{len(model.graph.node)} nodes, each needed by an output; {weights} weights"
    return CheckResult.decided(not problems, len(problems), 0, "problems", detail)


def structure_problems(model: ModelProto) -> list[str]:
    """Everything in a graph that should not ship."""
    problems: list[str] = []
    external = [tensor.name for tensor in model.graph.initializer if tensor.external_data]
    if external:
        problems.append(f"{len(external)} weights lie outside the file, such as {external[0]!r}")
    try:
        onnx.checker.check_model(model, full_check=not external)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        problems.append(f"not a valid ONNX graph: {' '.join(str(error).split())[:200]}")
    nodes, initializers = unneeded_nodes(model), unused_initializers(model)
    if nodes:
        problems.append(f"{len(nodes)} nodes that no output needs, such as {nodes[0]}")
    if initializers:
        problems.append(f"{len(initializers)} initializers that no output needs, such as {initializers[0]!r}")
    unfolded = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if unfolded:
        problems.append(f"{len(unfolded)} batch normalisations not folded into convolutions, such as {unfolded[0]!r}")
    notes = [item.key for item in (*model.metadata_props, *model.graph.metadata_props) if item.key != METADATA_KEY]
    notes += [f"{node.name}: {item.key}" for node in model.graph.node for item in node.metadata_props]
    if notes:
        problems.append(f"{len(notes)} notes of the exporter in the metadata, such as {notes[0]!r}")
    documented = [item.name for item in (model.graph, *model.graph.node, *model.graph.initializer) if item.doc_string]
    if documented or model.doc_string:
        problems.append("doc strings in the graph")
    paths = sorted({name for node in model.graph.node for name in (node.name, *node.output) if _PATH.search(name)})
    if paths:
        problems.append(f"names that tell of the source tree, such as {paths[0]!r}")
    return problems
