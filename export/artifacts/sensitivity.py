"""Which layers stay in floating point, so that INT8 costs no more accuracy than allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from export.artifacts.quantising import Quantiser, UInt8, session
from export.calibration import CalibrationImages, confusions
from export.exposing import expose_logits
from export.graph import INPUT_NAME, LOGITS_NAME, MASK_NAME
from pipeline.metrics import mean_iou


@dataclass(frozen=True)
class Selection:
    """What the search found.

    Attributes:
        model: the quantised graph.
        kept: layers that stay in single precision, the most sensitive first.
        layers: number of layers there are.
        drop_points: loss of mIoU on the held-out training images, in points.
        first_drop_points: likewise with every layer in INT8.
        sensitivities: layer -> relative squared error of the logits with that layer alone in INT8; empty where every
            layer could be quantised at once.
    """

    model: ModelProto
    kept: tuple[str, ...]
    layers: int
    drop_points: float
    first_drop_points: float
    sensitivities: dict[str, float]


class _Judge:
    """Loss of mIoU against the graph in single precision, on the held-out images."""

    def __init__(self, reference: ModelProto, images: CalibrationImages, num_classes: int) -> None:
        self._images = images
        self._num_classes = num_classes
        self.batches: list[UInt8] = list(images.batches(images.held_out))
        self._miou = self._measure(reference)

    def drop_points(self, model: ModelProto) -> float:
        return 100 * (self._miou - self._measure(model))

    def _measure(self, model: ModelProto) -> float:
        runner = session(model)
        masks = [runner.run([MASK_NAME], {INPUT_NAME: batch})[0] for batch in self.batches]
        return mean_iou(confusions(masks, self._images, self._num_classes))


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
    measured. Then the most sensitive layers are kept in floating point: 1, 2, 4... of them until the loss is within the
    limit, and from there the fewest, by bisection. When even all of them do not help, the result with the smallest loss
    is returned, and its `drop_points` tell.

    Args:
        reference: the graph in single precision.
        quantiser: of that graph.
        images: held-out images among them.
        num_classes: C.
        limit_points: largest allowed loss of mIoU, in points.
        probes: held-out images that sensitivities are measured on.
    """
    judge = _Judge(reference, images, num_classes)
    model = quantiser.quantise()
    first = judge.drop_points(model)
    count = len(quantiser.layers)
    if first <= limit_points:
        return Selection(model, (), count, first, first, {})
    found = _sensitivities(reference, quantiser, judge.batches[:probes])
    order = sorted(quantiser.layers, key=lambda name: (-found[name], name))
    tried: dict[int, tuple[float, ModelProto]] = {0: (first, model)}

    def within(kept: int) -> bool:
        candidate = quantiser.quantise(order[:kept])
        tried[kept] = (judge.drop_points(candidate), candidate)
        return tried[kept][0] <= limit_points

    low, high = 0, 1
    while not within(high) and high < count:
        low, high = high, min(2 * high, count)
    if tried[high][0] <= limit_points:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if within(middle) else (middle, high)
        best = high
    else:
        best = min(tried, key=lambda kept: (tried[kept][0], kept))
    drop, model = tried[best]
    return Selection(model, tuple(order[:best]), count, drop, first, found)


def _sensitivities(reference: ModelProto, quantiser: Quantiser, batches: Sequence[UInt8]) -> dict[str, float]:
    expected = _logits(reference, batches)
    energy = sum(float(np.square(logits - logits.mean()).sum()) for logits in expected) or 1.0
    return {
        layer: sum(
            float(np.square(found - logits).sum())
            for found, logits in zip(_logits(quantiser.quantise_only(layer), batches), expected, strict=True)
        )
        / energy
        for layer in quantiser.layers
    }


def _logits(model: ModelProto, batches: Sequence[UInt8]) -> list[NDArray[np.float64]]:
    runner = session(expose_logits(model))
    return [runner.run([LOGITS_NAME], {INPUT_NAME: batch})[0].astype(np.float64) for batch in batches]
