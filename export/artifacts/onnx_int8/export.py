"""Artefact kind `onnx_int8`: the deploy graph with quantised layers, calibrated on training images."""

from __future__ import annotations

from pathlib import Path

from export.artifacts.onnx_int8.calibration import choose
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.quantisation import Quantiser
from export.artifacts.onnx_int8.sensitivity import select
from export.artifacts.shared.exporter import ExportContext, engine_manifest
from export.artifacts.shared.model_file import write_model
from export.artifacts.shared.single_precision import build_model
from export.graph.deploy import LOGITS_NAME
from export.graph.structure import structure_sha256
from export.graph.tracing import OPSET
from pipeline.models.network.segmentor import Segmentor
from serving.contract.errors import UserError


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
        "images": images.manifest_entry(),
        "layers": found.layers,
        "kept_in_float": list(found.kept),
        "miou_drop_points": round(found.drop_points, 4),
        "miou_drop_points_without_kept": round(found.first_drop_points, 4),
        "limit_points": options.max_miou_drop_points,
        "within_limit": found.drop_points <= options.max_miou_drop_points,
        "sensitivities": {name: float(f"{error:.4g}") for name, error in found.sensitivities.items()},
    }
    manifest = engine_manifest(
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
    return write_model(found.model, manifest, context.folder)
