"""Artefact kind `onnx_fp16`: the deploy graph in half precision, with the same bytes in and out."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.onnx_fp16.conversion import to_float16
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.model_file import write_engine
from export.artifacts.shared.options import OutputOptions
from export.artifacts.shared.single_precision import build_model
from pipeline.models.network.segmentor import Segmentor


def export(segmentor: Segmentor, context: ExportContext, options: OutputOptions) -> Path:
    """See `Exporter`."""
    stride = segmentor.stride
    model = to_float16(build_model(segmentor, options.output), (1, 2 * stride, 3 * stride, 3))
    return write_engine(model, segmentor, context, precision="fp16", output=options.output)
