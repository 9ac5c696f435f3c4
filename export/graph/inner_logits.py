"""The inner logits of a shipped graph, made visible in a copy."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from export.graph.deploy import LOGITS_NAME
from serving.contract.errors import UserError


def expose_logits(model: ModelProto) -> ModelProto:
    """A copy of the graph with its inner logits as a further output. Raises UserError when it has no such tensor."""
    if not any(LOGITS_NAME in node.output for node in model.graph.node):
        raise UserError(f"the graph has no inner tensor {LOGITS_NAME!r}; export it again with this version")
    copy = ModelProto()
    copy.CopyFrom(model)
    if all(output.name != LOGITS_NAME for output in copy.graph.output):
        copy.graph.output.append(onnx.ValueInfoProto(name=LOGITS_NAME))
    return copy
