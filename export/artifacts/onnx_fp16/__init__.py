"""Artefact kind `onnx_fp16`: the deploy graph in half precision, with the same bytes in and out."""

from __future__ import annotations

from export.artifacts.onnx_fp16.options import OnnxFp16Options
from export.artifacts.shared.kind import ArtifactKind
from export.artifacts.shared.limits import FP16

KIND = ArtifactKind(OnnxFp16Options, "fp16", FP16, "export.artifacts.onnx_fp16.export:export")
