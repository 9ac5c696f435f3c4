"""Artefact kind `onnx_fp16`: the deploy graph in half precision, with the same bytes in and out."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.onnx_fp16.conversion import to_float16
from export.artifacts.onnx_fp16.options import OnnxFp16Options
from export.artifacts.shared.exporter import ExportContext, engine_manifest
from export.artifacts.shared.model_file import write_model
from export.artifacts.shared.single_precision import build_model
from export.graph.deploy import LOGITS_NAME
from export.graph.structure import structure_sha256
from export.graph.tracing import OPSET
from pipeline.models.network.segmentor import Segmentor


def export(segmentor: Segmentor, context: ExportContext, options: OnnxFp16Options) -> Path:
    """See `Exporter`."""
    stride = segmentor.stride
    model = to_float16(build_model(segmentor, options.output), (1, 2 * stride, 3 * stride, 3))
    manifest = engine_manifest(
        context,
        segmentor,
        kind="onnx",
        precision="fp16",
        output=options.output,
        details={"opset": OPSET, "logits": LOGITS_NAME, "structure_sha256": structure_sha256(model)},
    )
    return write_model(model, manifest, context.folder)
