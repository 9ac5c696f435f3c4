"""Artefact kind `onnx_fp16`: the deploy graph in half precision, with the same bytes in and out."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.half import to_half
from export.artifacts.interface import ExportContext, describe
from export.artifacts.onnx_fp32 import build_model
from export.artifacts.saving import save
from export.artifacts.tracing import OPSET
from export.graph import LOGITS_NAME
from export.structure import structure_sha256
from pipeline.config.artifacts import OnnxFp16Options
from pipeline.models.segmentor import Segmentor


def export(segmentor: Segmentor, context: ExportContext, options: OnnxFp16Options) -> Path:
    """See `Exporter`."""
    stride = segmentor.stride
    model = to_half(build_model(segmentor, options.output), (1, 2 * stride, 3 * stride, 3))
    manifest = describe(
        context,
        segmentor,
        kind="onnx",
        precision="fp16",
        output=options.output,
        details={"opset": OPSET, "logits": LOGITS_NAME, "structure_sha256": structure_sha256(model)},
    )
    return save(model, manifest, context.folder)
