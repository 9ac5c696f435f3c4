"""Artefact kind `onnx_fp16`: the deploy graph in half precision, with the same bytes in and out."""

from __future__ import annotations

from export.artifacts.shared.kind import ArtifactKind
from export.artifacts.shared.options import OutputOptions
from serving.contract.limits import FP16

KIND = ArtifactKind(OutputOptions, "fp16", FP16, "export.artifacts.onnx_fp16.export:export")
