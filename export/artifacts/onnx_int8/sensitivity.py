"""Which layers stay in floating point, so that INT8 costs no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.artifacts.onnx_int8.calibration import CalibrationImages, confusions
from export.artifacts.onnx_int8.layer_choice import LayerChoice, Trials, keep_fewest
from export.artifacts.onnx_int8.quantisation import Quantiser, UInt8, session
from export.graph.deploy import INPUT_NAME, LOGITS_NAME, MASK_NAME
from export.graph.inner_logits import expose_logits
from pipeline.evaluation.metrics import mean_iou

MOST_PARTS = 64  # sensitivities are measured of so many parts at most: of each layer, in smaller networks


@dataclass(frozen=True)
class Selection:
    """What the search found.

    Attributes:
        best: the layers that stay in single precision; its loss of mIoU, on the held-out training images, is above the
            limit where no choice that was tried is within it.
        layers: number of layers there are.
        first_drop_points: loss of mIoU likewise with every layer in INT8, in points.
        sensitivities: layer -> relative squared error of the logits with that layer alone in INT8 (with its part of the
            network alone, where there are more than `MOST_PARTS` layers); empty where every layer could be quantised.
    """

    best: LayerChoice
    layers: int
    first_drop_points: float
    sensitivities: dict[str, float]


def held_out_miou(model: ModelProto, images: CalibrationImages, num_classes: int) -> float:
    """The mIoU in [0,1] of a graph on the held-out images."""
    runner = session(model)
    masks = (runner.run([MASK_NAME], {INPUT_NAME: batch})[0] for batch in images.batches(images.held_out))
    return mean_iou(confusions(masks, images, num_classes))


def select(
    reference: ModelProto,
    quantiser: Quantiser,
    images: CalibrationImages,
    *,
    num_classes: int,
    limit_points: float,
    probes: int,
) -> Selection:
    """Quantise as many layers as the limit allows.

    Where the whole network in INT8 loses more than the limit, each layer is quantised alone and the error of the logits
    measured; then as few layers as possible stay in floating point: see `keep_fewest`. When no choice is within the
    limit, the one with the smallest loss is returned, and its `best.drop_points` tell.

    Args:
        reference: the graph in single precision.
        quantiser: of that graph.
        images: held-out images among them.
        num_classes: C.
        limit_points: largest allowed loss of mIoU, in points.
        probes: held-out images that sensitivities are measured on.
    """
    expected = held_out_miou(reference, images, num_classes)

    def measure(kept: Sequence[str]) -> tuple[float, ModelProto]:
        model = quantiser.quantise(kept)
        return 100 * (expected - held_out_miou(model, images, num_classes)), model

    trials = Trials(measure, limit_points)
    enough = trials.within(())
    first = trials.best
    errors = {} if enough else _sensitivities(reference, quantiser, list(images.batches(images.held_out[:probes])))
    if not enough:
        keep_fewest(trials, sorted(quantiser.layers, key=lambda name: -errors[name]))
    return Selection(trials.best, len(quantiser.layers), first.drop_points, errors)


def _sensitivities(reference: ModelProto, quantiser: Quantiser, batches: Sequence[UInt8]) -> dict[str, float]:
    """Layer -> relative squared error of the logits with it alone in INT8."""
    expected = _logits(reference, batches)
    energy = sum(float(np.square(logits - logits.mean()).sum()) for logits in expected) or 1.0
    layers = np.array(quantiser.layers)
    errors = {}
    for part in np.array_split(layers, min(MOST_PARTS, len(layers))):
        found = _logits(quantiser.quantise_only(part.tolist()), batches)
        error = sum(float(np.square(a - b).sum()) for a, b in zip(found, expected, strict=True)) / energy
        errors.update(dict.fromkeys(part.tolist(), error))
    return errors


def _logits(model: ModelProto, batches: Sequence[UInt8]) -> list[NDArray[np.float64]]:
    runner = session(expose_logits(model))
    return [runner.run([LOGITS_NAME], {INPUT_NAME: batch})[0].astype(np.float64) for batch in batches]
