"""Artefact kind `onnx_int8`: the deploy graph with quantised layers, calibrated on training images."""

from __future__ import annotations

from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.shared.kind import ArtifactKind
from serving.contract.limits import INT8

KIND = ArtifactKind(OnnxInt8Options, "int8", INT8, "export.artifacts.onnx_int8.export:export")
