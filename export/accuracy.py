"""What a method brings: its mIoU beside the baseline's, with a paired interval of the difference.

Both networks see the same images, so that an image which is hard for both does not widen the interval. Resampled are
the images, or whole sequences where the dataset names them (frames of one recording are no independent draws). Where
there are several seeds the interval also holds their spread, and speaks of the method rather than of one training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from export.intervals import CONFIDENCE, Interval, tail_probability

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class PairedAccuracy:
    """Evaluations of baseline and method on the same N images, for the same S seeds.

    Attributes:
        seeds: S seeds.
        baseline: `[S,N,C,C]` confusion matrices per image, rows label, columns prediction.
        other: the method's, likewise.
        class_names: C names.
        sequences: recording of each image where the dataset names them, else None.
        baseline_boundary: `[S,N,C,2]` intersection and union of boundary bands.
        other_boundary: the method's, likewise.
    """

    seeds: Sequence[int]
    baseline: NDArray[np.int64]
    other: NDArray[np.int64]
    class_names: Sequence[str]
    sequences: Sequence[str] | None
    baseline_boundary: NDArray[np.int64]
    other_boundary: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = (len(self.seeds), self.baseline.shape[1], len(self.class_names), len(self.class_names))
        if not (self.baseline.shape == self.other.shape == shape):
            raise ValueError(
                f"confusion matrices: expected {shape} for both, got {self.baseline.shape} and {self.other.shape}"
            )


def accuracy_section(accuracy: PairedAccuracy, *, resamples: int, seed: int) -> dict[str, Any]:
    """`miou`, `baseline_miou`, `difference` (method minus baseline) and `ci95`, in [0, 1], averaged over seeds.

    Beside them: boundary IoU, IoU per class, every seed by itself, and what was resampled how often.
    """
    groups, unit = _groups(accuracy)
    generator = np.random.default_rng(seed)
    baseline, other = _overlaps(accuracy.baseline), _overlaps(accuracy.other)
    miou = [_mean_iou(counts.sum(axis=0)) for counts in other]
    baseline_miou = [_mean_iou(counts.sum(axis=0)) for counts in baseline]
    interval = paired_difference(baseline, other, groups, resamples=resamples, generator=generator)
    per_seed: list[dict[str, Any]] = []
    for index, one in enumerate(accuracy.seeds):
        alone = paired_difference(
            baseline[index : index + 1], other[index : index + 1], groups, resamples=resamples, generator=generator
        )
        per_seed.append(
            {"seed": one, "miou": miou[index], "baseline_miou": baseline_miou[index]}
            | {"difference": alone.value, "ci95": _bounds(alone)}
        )
    ours = np.stack([_iou(counts.sum(axis=0)) for counts in other])
    theirs = np.stack([_iou(counts.sum(axis=0)) for counts in baseline])
    return {
        "miou": float(np.mean(miou)),
        "baseline_miou": float(np.mean(baseline_miou)),
        "difference": interval.value,
        "ci95": _bounds(interval),
        "boundary_iou": _mean_boundary(accuracy.other_boundary),
        "baseline_boundary_iou": _mean_boundary(accuracy.baseline_boundary),
        "per_class": [
            {"class": name, "iou": _mean_or_none(ours[:, index]), "baseline_iou": _mean_or_none(theirs[:, index])}
            for index, name in enumerate(accuracy.class_names)
        ],
        "seeds": per_seed,
        "images": int(accuracy.other.shape[1]),
        "resampled": f"{len(np.unique(groups))} {unit}"
        + (f" and {len(accuracy.seeds)} seeds" if len(accuracy.seeds) > 1 else ""),
    }


def paired_difference(
    baseline: Counts, other: Counts, groups: NDArray[np.int64], *, resamples: int, generator: np.random.Generator
) -> Interval:
    """Difference of mIoU, method minus baseline, averaged over seeds, with a 95 % interval.

    Args:
        baseline: `[S,N,3,C]` intersections, label pixels and predicted pixels, per seed and image.
        other: the method's, likewise.
        groups: `[N]` what is resampled together, as consecutive numbers from 0.
        resamples: of the bootstrap.
        generator: its source of randomness.

    Returns:
        With one seed the percentile bootstrap over groups. With several, Student's t with the bootstrap's variance over
        groups plus the variance of the mean over seeds, and the degrees of freedom of that sum (Welch-Satterthwaite):
        resampling three seeds cannot reach beyond the three values seen. Bounds are NaN where there is one group only.
    """
    seeds, count = other.shape[0], int(groups.max()) + 1
    by_seed = np.asarray(
        [_mean_iou(b.sum(axis=0)) - _mean_iou(a.sum(axis=0)) for a, b in zip(baseline, other, strict=True)]
    )
    value = float(by_seed.mean())
    if count == 1:
        return Interval(value, math.nan, math.nan)
    member = np.zeros((count, len(groups)))
    member[groups, np.arange(len(groups))] = 1
    weights = generator.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    drawn = np.mean(
        [
            _resampled_miou(weights, member, b) - _resampled_miou(weights, member, a)
            for a, b in zip(baseline, other, strict=True)
        ],
        axis=0,
    )
    if seeds == 1:
        tail = tail_probability(count)
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Interval(value, float(low), float(high))
    over_groups = float(np.var(drawn)) * count / (count - 1)
    over_seeds = float(np.var(by_seed, ddof=1)) / seeds
    total = over_groups + over_seeds
    if total == 0:
        return Interval(value, value, value)
    freedom = total**2 / (over_groups**2 / (count - 1) + over_seeds**2 / (seeds - 1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total)
    return Interval(value, value - reach, value + reach)


def _groups(accuracy: PairedAccuracy) -> tuple[NDArray[np.int64], str]:
    images = accuracy.other.shape[1]
    if accuracy.sequences is None:
        return np.arange(images), "images"
    _, groups = np.unique(np.asarray(accuracy.sequences, dtype=str), return_inverse=True)
    return groups.astype(np.int64), "sequences"


def _overlaps(confusions: NDArray[np.int64]) -> Counts:
    """`[...,3,C]`: intersections, label pixels, predicted pixels; all that an IoU needs of `[...,C,C]`."""
    diagonal = np.diagonal(confusions, axis1=-2, axis2=-1)
    return np.stack([diagonal, confusions.sum(axis=-1), confusions.sum(axis=-2)], axis=-2).astype(np.float64)


def _iou(overlaps: Counts) -> NDArray[np.float64]:
    """IoU per class `[...,C]` of `[...,3,C]`; NaN where a class is neither labelled nor predicted."""
    union = overlaps[..., 1, :] + overlaps[..., 2, :] - overlaps[..., 0, :]
    result: NDArray[np.float64] = np.divide(
        overlaps[..., 0, :], union, out=np.full(union.shape, np.nan), where=union > 0
    )
    return result


def _mean_iou(overlaps: Counts) -> float:
    return float(_nanmean(_iou(overlaps)))


def _resampled_miou(weights: Counts, member: Counts, overlaps: Counts) -> NDArray[np.float64]:
    """mIoU `[R]` of each resample: `weights [R,G]` of groups, `member [G,N]`, `overlaps [N,3,C]`."""
    by_group = member @ overlaps.reshape(len(overlaps), -1)
    return _nanmean(_iou((weights @ by_group).reshape(len(weights), *overlaps.shape[1:])))


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; NaN where nothing is left (numpy's own warns then)."""
    present = ~np.isnan(values)
    number = present.sum(axis=-1)
    total = np.where(present, values, 0.0).sum(axis=-1)
    result: NDArray[np.float64] = np.divide(
        total, number, out=np.full(np.shape(total), np.nan), where=np.asarray(number > 0)
    )
    return result


def _mean_boundary(boundary: NDArray[np.int64]) -> float | None:
    """Mean over seeds of the mean boundary IoU over classes, of `[S,N,C,2]`."""
    total = boundary.sum(axis=1).astype(np.float64)
    iou = np.divide(total[..., 0], total[..., 1], out=np.full(total.shape[:-1], np.nan), where=total[..., 1] > 0)
    return _mean_or_none(_nanmean(iou))


def _mean_or_none(values: NDArray[np.float64]) -> float | None:
    mean = float(_nanmean(np.asarray(values)))
    return None if math.isnan(mean) else mean


def _bounds(interval: Interval) -> list[float] | None:
    return [interval.low, interval.high] if interval.bounded else None
