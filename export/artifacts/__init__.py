"""Kinds of artefact by name, one room each: what a stripped segmentor is exported to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from export.artifacts.shared.kind import ArtifactKind

ARTIFACT_KINDS: Registry[ArtifactKind] = Registry(
    "kind of artifact",
    {
        "onnx_fp32": "export.artifacts.onnx_fp32:KIND",
        "onnx_fp16": "export.artifacts.onnx_fp16:KIND",
        "onnx_int8": "export.artifacts.onnx_int8:KIND",
    },
)
