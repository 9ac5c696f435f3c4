"""Artefact kind `onnx_fp32`: the deploy graph in single precision."""

from __future__ import annotations

from export.artifacts.shared.kind import ArtifactKind
from export.artifacts.shared.options import OutputOptions
from serving.contract.limits import FP32

KIND = ArtifactKind(OutputOptions, "fp32", FP32, "export.artifacts.onnx_fp32.export:export")
