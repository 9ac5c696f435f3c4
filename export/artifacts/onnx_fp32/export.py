"""Artefact kind `onnx_fp32`: the deploy graph in single precision."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.onnx_fp32.options import OnnxFp32Options
from export.artifacts.shared.exporter import ExportContext, engine_manifest
from export.artifacts.shared.model_file import write_model
from export.artifacts.shared.single_precision import build_model
from export.graph.deploy import LOGITS_NAME
from export.graph.structure import structure_sha256
from export.graph.tracing import OPSET
from pipeline.models.network.segmentor import Segmentor


def export(segmentor: Segmentor, context: ExportContext, options: OnnxFp32Options) -> Path:
    """See `Exporter`."""
    model = build_model(segmentor, options.output)
    manifest = engine_manifest(
        context,
        segmentor,
        kind="onnx",
        precision="fp32",
        output=options.output,
        details={"opset": OPSET, "logits": LOGITS_NAME, "structure_sha256": structure_sha256(model)},
    )
    return write_model(model, manifest, context.folder)
