"""IoU and boundary IoU of every class for baseline and method, with intervals of their difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.intervals import drawn_counts, expanded_percentiles
from pipeline.evaluation.metrics import iou

Float64 = NDArray[np.float64]

_AT_ONCE = 64  # resamples; bounds the memory


@dataclass(frozen=True)
class ClassDifference:
    """One class, averaged over the seeds; IoU in [0,1], NaN where the class has no ground truth.

    Attributes:
        name: of the class.
        baseline: IoU of the baseline.
        method: IoU of the method.
        low: lower bound of the 95 % interval of their difference over images, NaN where there is none.
        high: upper bound.
    """

    name: str
    baseline: float
    method: float
    low: float
    high: float


def class_differences(
    accuracy: PairedAccuracy, *, boundary: bool, resamples: int = 1000, seed: int = 0
) -> list[ClassDifference]:
    """Every class with its own interval over images, or over sequences where the dataset names them.

    Every resample draws the same images for both networks and all seeds; the bounds are those of
    `expanded_percentiles`. With one seed they say what other images of the kind might give, and nothing of another
    training. There are as many intervals as classes: of twenty that hold at 95 %, one is expected to miss.

    Args:
        accuracy: evaluations of baseline and method.
        boundary: boundary IoU instead of IoU.
        resamples: number of resamples.
        seed: of the resampling.
    """
    labels = accuracy.baseline.sum(axis=-1)
    if boundary:
        sides = [accuracy.baseline_boundary, accuracy.other_boundary]
        counts = [np.stack([side[..., 0], side[..., 1], labels], axis=2) for side in sides]
    else:
        counts = [
            np.stack([np.diagonal(side, axis1=-2, axis2=-1), labels, side.sum(axis=-2)], axis=2)
            for side in (accuracy.baseline, accuracy.other)
        ]
    units = [_by_unit(each.astype(np.float64), accuracy.sequences) for each in counts]
    totals = [_mean_iou(each.sum(axis=1), boundary) for each in units]
    number = units[0].shape[1]
    low = high = np.full(len(accuracy.class_names), np.nan)
    if number > 1:
        generator = np.random.default_rng(seed)
        drawn = [
            np.subtract(*(_mean_iou(_resampled(each, weights), boundary) for each in reversed(units)))
            for weights in drawn_counts(number, resamples, generator, at_once=_AT_ONCE)
        ]
        low, high = _bounds(np.concatenate(drawn), number)
    return [
        ClassDifference(name, float(totals[0][i]), float(totals[1][i]), float(low[i]), float(high[i]))
        for i, name in enumerate(accuracy.class_names)
    ]


def _by_unit(counts: Float64, sequences: object) -> Float64:
    """`[S,N,3,C]` summed over the images of each sequence where there are several, else as it is."""
    if not isinstance(sequences, (list, tuple)) or len(set(sequences)) < 2:
        return counts
    names = list(dict.fromkeys(sequences))
    members = [[index for index, each in enumerate(sequences) if each == name] for name in names]
    return np.stack([counts[:, indices].sum(axis=1) for indices in members], axis=1)


def _resampled(counts: Float64, weights: NDArray[np.int64]) -> Float64:
    """`[S,U,3,C]` and how often each unit is drawn, `[R,U]`, to `[R,S,3,C]`."""
    result: Float64 = np.einsum("ru,sukc->rskc", weights.astype(np.float64), counts)
    return result


def _mean_iou(counts: Float64, boundary: bool) -> Float64:
    """`[...,S,3,C]` -> `[...,C]`: IoU per class, averaged over the seeds."""
    first, second, third = (counts[..., index, :] for index in range(3))
    if boundary:
        union = np.where(third > 0, second, 0)
        values = np.divide(first, union, out=np.full(union.shape, np.nan), where=union > 0)
    else:
        values = iou(first, second, third)
    return np.asarray(values.mean(axis=-2))


def _bounds(values: Float64, units: int) -> tuple[Float64, Float64]:
    """Bounds `[C]` each of `[R,C]`, of the resamples in which the class has ground truth."""
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    for index, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        if len(known):
            low[index], high[index] = expanded_percentiles(known, units)
    return low, high
