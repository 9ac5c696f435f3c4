"""Artefact kind `onnx_int8`: the deploy graph with quantised layers, calibrated on training images."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.interface import ExportContext, describe
from export.artifacts.onnx_fp32 import build_model
from export.artifacts.quantising import Quantiser
from export.artifacts.saving import save
from export.artifacts.sensitivity import select
from export.artifacts.tracing import OPSET
from export.calibration import choose
from export.graph import LOGITS_NAME
from export.structure import structure_sha256
from pipeline.config.artifacts import OnnxInt8Options
from pipeline.models.segmentor import Segmentor
from serving.errors import UserError


def export(segmentor: Segmentor, context: ExportContext, options: OnnxInt8Options) -> Path:
    """See `Exporter`."""
    if context.prepared is None:
        raise UserError(f"{context.name}: INT8 needs images to calibrate on; run `prepare` first")
    images = choose(
        context.prepared(),
        calibration=options.images,
        held_out=options.held_out,
        seed=options.seed,
        stride=segmentor.stride,
        resize=context.info.resize,
    )
    reference = build_model(segmentor, options.output)
    with Quantiser(reference, images, options) as quantiser:
        found = select(
            reference,
            quantiser,
            images,
            num_classes=segmentor.num_classes,
            limit_points=options.max_miou_drop_points,
            probes=options.probes,
        )
    quantisation = {
        "scheme": options.scheme,
        "calibration": options.calibration,
        "images": images.describe(),
        "layers": found.layers,
        "kept_in_float": list(found.kept),
        "miou_drop_points": round(found.drop_points, 4),
        "miou_drop_points_without_kept": round(found.first_drop_points, 4),
        "limit_points": options.max_miou_drop_points,
        "within_limit": found.drop_points <= options.max_miou_drop_points,
        "sensitivities": {name: float(f"{error:.4g}") for name, error in found.sensitivities.items()},
    }
    manifest = describe(
        context,
        segmentor,
        kind="onnx",
        precision="int8",
        output=options.output,
        details={
            "opset": OPSET,
            "logits": LOGITS_NAME,
            "structure_sha256": structure_sha256(found.model),
            "quantisation": quantisation,
        },
    )
    return save(found.model, manifest, context.folder)
