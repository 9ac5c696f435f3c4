"""Inner tensors of a shipped graph, made visible in a copy."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import ModelProto

from export.graph.deploy import LOGITS_NAME
from serving.contract.errors import UserError


def expose_logits(model: ModelProto) -> ModelProto:
    """A copy of the graph with its inner logits as a further output. Raises UserError when it has no such tensor."""
    if not any(LOGITS_NAME in node.output for node in model.graph.node):
        raise UserError(f"the graph has no inner tensor {LOGITS_NAME!r}; export it again with this version")
    return expose_tensors(model, [LOGITS_NAME])


def expose_tensors(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """A copy of the graph with these tensors, which nodes of it make, as further outputs."""
    copy = ModelProto()
    copy.CopyFrom(model)
    outputs = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    return copy
