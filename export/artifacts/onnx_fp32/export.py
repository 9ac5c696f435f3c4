"""Artefact kind `onnx_fp32`: the deploy graph in single precision."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.model_file import write_engine
from export.artifacts.shared.options import OutputOptions
from export.artifacts.shared.single_precision import build_model
from pipeline.models.network.segmentor import Segmentor


def export(segmentor: Segmentor, context: ExportContext, options: OutputOptions) -> Path:
    """See `Exporter`."""
    model = build_model(segmentor, options.output)
    return write_engine(model, segmentor, context, precision="fp32", output=options.output)
