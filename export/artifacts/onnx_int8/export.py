"""Artefact kind `onnx_int8`: the deploy graph with quantised layers, calibrated on training images."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from export.artifacts.onnx_int8.calibration import CalibrationImages, choose
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.artifacts.onnx_int8.quantisation import Quantiser
from export.artifacts.onnx_int8.sensitivity import Selection, select
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.model_file import write_engine
from export.artifacts.shared.single_precision import build_model
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.models.network.segmentor import Segmentor
from serving.contract.errors import UserError


def export(segmentor: Segmentor, context: ExportContext, options: OnnxInt8Options) -> Path:
    """See `Exporter`."""
    if context.prepared is None:
        raise UserError(f"{context.name}: INT8 needs images to calibrate on; run `prepare` first")
    reference = build_model(segmentor, options.output)
    images, found = quantised(reference, segmentor, context.prepared(), context.info.resize, options)
    quantisation = {
        "scheme": options.scheme,
        "calibration": options.calibration,
        "images": images.manifest_entry() | {"asked": {"calibration": options.images, "held_out": options.held_out}},
        "layers": found.layers,
        "kept_in_float": list(found.best.kept),
        "miou_drop_points": round(found.best.drop_points, 4),
        "miou_drop_points_without_kept": round(found.first_drop_points, 4),
        "limit_points": options.max_miou_drop_points,
        "within_limit": found.best.drop_points <= options.max_miou_drop_points,
        "sensitivities": {name: float(f"{error:.4g}") for name, error in found.sensitivities.items()},
    }
    details = {"quantisation": quantisation}
    return write_engine(found.best.model, segmentor, context, precision="int8", output=options.output, details=details)


def quantised(
    reference: ModelProto,
    segmentor: Segmentor,
    prepared: Prepared,
    resize: tuple[int, int] | None,
    options: OnnxInt8Options,
) -> tuple[CalibrationImages, Selection]:
    """A graph in INT8, and the images that it was calibrated on.

    Args:
        reference: in single precision.
        segmentor: that it was made of.
        prepared: the dataset.
        resize: (height, width) that images are resized to first, or None.
        options: of the kind of artefact.
    """
    images = choose(
        prepared,
        calibration=options.images,
        held_out=options.held_out,
        seed=options.seed,
        stride=segmentor.stride,
        resize=resize,
    )
    with Quantiser(reference, images, options) as quantiser:
        found = select(
            reference,
            quantiser,
            images,
            num_classes=segmentor.num_classes,
            limit_points=options.max_miou_drop_points,
            probes=options.probes,
        )
    return images, found
