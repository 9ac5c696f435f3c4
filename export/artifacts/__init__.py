"""Artefacts by kind: what a stripped segmentor is exported to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from export.artifacts.interface import Exporter

# `pipeline.config.artifacts.ARTIFACT_OPTIONS` has the same names: options are checked when params.yaml is read.
ARTIFACTS: Registry[Exporter] = Registry(
    "kind of artifact",
    {
        "onnx_fp32": "export.artifacts.onnx_fp32:export",
        "onnx_fp16": "export.artifacts.onnx_fp16:export",
        "onnx_int8": "export.artifacts.onnx_int8:export",
    },
)
