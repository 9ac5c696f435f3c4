"""The difference in mIoU between two networks on the same images, with its interval over images, sequences or seeds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.evaluation.intervals import CONFIDENCE, drawn_counts, expanded_percentiles
from pipeline.evaluation.metrics import iou, mean_of_present

Float64 = NDArray[np.float64]

_RESAMPLES_AT_ONCE = 256  # bounds the memory


@dataclass(frozen=True)
class PairedDifference:
    """A difference between two networks that saw the same images, and its confidence interval.

    Attributes:
        difference: the estimate from all the data.
        low: lower bound.
        high: upper bound.
        units: how many independent units it rests on.
        unit: what these are: "image", "group" (a video sequence) or "seed".
        confidence: of the interval.
    """

    difference: float
    low: float
    high: float
    units: int
    unit: Literal["image", "group", "seed"]
    confidence: float = CONFIDENCE


def paired_bootstrap(
    confusions_a: NDArray[np.integer[Any]],
    confusions_b: NDArray[np.integer[Any]],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> PairedDifference:
    """Interval of the difference in mIoU, a - b, of two networks on the same images.

    Every resample draws units with replacement, the same for both networks, and takes both mIoU from the summed
    confusion matrices, over the classes with ground truth in the resample. The bounds are those of
    `expanded_percentiles`.

    Args:
        confusions_a: `[N,C,C]`, one matrix per image.
        confusions_b: `[N,C,C]` of the same images in the same order.
        groups: the group of each image: whole groups are drawn, since frames of one sequence are not independent.
            With a single group its images are drawn; `unit` of the result says which.
        resamples: number of resamples.
        seed: of the resampling.
        confidence: of the interval.

    Returns:
        The interval; [-1, 1], all that is known, when there is a single image or no labelled pixel.

    Raises:
        ValueError: the shapes do not fit each other, or there is no image.
    """
    if confusions_a.shape != confusions_b.shape or confusions_a.ndim != 3 or not len(confusions_a):
        raise ValueError(
            f"expected two arrays [N,C,C] of one shape, N >= 1; got {confusions_a.shape} and {confusions_b.shape}"
        )
    if groups is not None and len(groups) != len(confusions_a):
        raise ValueError(f"groups: expected one per image ({len(confusions_a)}), got {len(groups)}")
    sides = [_iou_counts(confusions) for confusions in (confusions_a, confusions_b)]
    unit: Literal["image", "group"] = "image"
    if groups is not None and len(set(groups)) > 1:
        unit = "group"
        number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        numbers = np.array([number_of[group] for group in groups])
        sides = [_sum_by(side, numbers, len(number_of)) for side in sides]
    units = len(sides[0])
    difference = float(np.subtract(*(_mean_iou(side.sum(axis=0)) for side in sides)))
    if units < 2 or math.isnan(difference):
        return PairedDifference(difference, -1.0, 1.0, units, unit, confidence)
    differences = np.concatenate(
        [
            np.subtract(*(_mean_iou(np.tensordot(counts.astype(np.float64), side, axes=1)) for side in sides))
            for counts in drawn_counts(units, resamples, np.random.default_rng(seed), at_once=_RESAMPLES_AT_ONCE)
        ]
    )
    low, high = expanded_percentiles(differences[~np.isnan(differences)], units, confidence)
    return PairedDifference(difference, float(low), float(high), units, unit, confidence)


def t_interval(differences: Sequence[float], *, confidence: float = CONFIDENCE) -> PairedDifference:
    """Student's t interval of the mean of paired differences, one per training seed.

    Raises:
        ValueError: fewer than two differences, from which no spread can be told.

    Example:
        >>> found = t_interval([0.010, 0.004, 0.007])
        >>> f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        '+0.0070 [-0.0005, +0.0145]'
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"a t interval needs at least two seeds, got {len(values)}")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return PairedDifference(mean, mean - reach, mean + reach, len(values), "seed", confidence)


def _iou_counts(confusions: NDArray[np.integer[Any]]) -> Float64:
    """`[N,C,C]` -> `[N,3,C]`: diagonal, row sums and column sums, all that IoU needs."""
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    return np.stack([diagonal, confusions.sum(axis=2), confusions.sum(axis=1)], axis=1).astype(np.float64)


def _sum_by(counts: Float64, numbers: NDArray[np.integer[Any]], groups: int) -> Float64:
    result = np.zeros((groups, *counts.shape[1:]))
    np.add.at(result, numbers, counts)
    return result


def _mean_iou(counts: Float64) -> Float64:
    """`[...,3,C]` -> `[...]`."""
    return mean_of_present(iou(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :]))
