"""What a segmentation is measured by: confusion matrices, IoU, boundary IoU, and intervals of their differences.

Everything is counted per image and added up afterwards, so that a dataset's number comes from one confusion matrix and
intervals can resample the images.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

_BOOTSTRAP_CHUNK = 256  # resamples at once: bounds the memory


def confusion_matrix(label: UInt8, prediction: UInt8, num_classes: int, ignore_index: int) -> Int64:
    """Count the pixels of one image by labelled and predicted class.

    Args:
        label: `[H,W]` uint8 train ids.
        prediction: `[H,W]` uint8 class indices; what it holds where the label is ignored does not matter.
        num_classes: C, at most 255.
        ignore_index: label outside every class.

    Returns:
        `[C,C]`: rows are labels, columns predictions.

    Raises:
        ValueError: shapes or dtypes differ from the above, or an index outside the classes.
    """
    _check_maps(label, prediction)
    # One histogram tells everything: labels pick a row (void and impossible ones get rows of their own), predictions
    # one of 256 columns, and whatever lies where nothing may lie is an error.
    void, impossible = num_classes, num_classes + 1
    row_of = np.full(256, impossible, dtype=np.int64)
    row_of[:num_classes] = np.arange(num_classes)
    if 0 <= ignore_index < 256:
        row_of[ignore_index] = void
    codes = (row_of * 256)[label]
    codes += prediction
    counts = np.bincount(codes.ravel(), minlength=(num_classes + 2) * 256).reshape(num_classes + 2, 256)
    if counts[impossible].any():
        wrong = sorted(set(np.unique(label).tolist()) - {*range(num_classes), ignore_index})
        raise ValueError(f"label: expected 0..{num_classes - 1} or {ignore_index} for void, got {wrong}")
    if counts[:num_classes, num_classes:].any():
        wrong = (np.flatnonzero(counts[:num_classes, num_classes:].any(axis=0)) + num_classes).tolist()
        raise ValueError(f"prediction: expected 0..{num_classes - 1}, got {wrong}")
    return counts[:num_classes, :num_classes].astype(np.int64)


def iou_per_class(confusion: NDArray[np.integer[Any]]) -> Float64:
    """Intersection over union of every class: TP / (TP + FP + FN).

    Args:
        confusion: `[...,C,C]`, rows labels, columns predictions.

    Returns:
        `[...,C]` in [0,1]; NaN for a class that is in neither labels nor predictions.
    """
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _iou(intersection, confusion.sum(axis=-1), confusion.sum(axis=-2))


def mean_iou(confusion: NDArray[np.integer[Any]]) -> float:
    """Mean of `iou_per_class` over the classes that are in labels or predictions; NaN when none is."""
    return float(_mean_of_present(iou_per_class(confusion)))


def boundary_width(height: int, width: int, ratio: float) -> int:
    """Width in pixels of the boundary bands of an image: `ratio` of its diagonal, at least 1 (Cheng et al. 2021)."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_counts(label: UInt8, prediction: UInt8, num_classes: int, ignore_index: int, width: int) -> Int64:
    """Intersection and union of the boundary bands of every class in one image.

    The band of a mask holds its pixels within `width` of its contour: what a 3x3 erosion takes away in `width` rounds,
    the border of the image being a contour too. Boundary IoU is the IoU of the bands of label and prediction (Cheng,
    Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021,
    eq. 2). The paper has no void: here the edge of a void region is not a contour, since the true one lies somewhere
    inside; void pixels belong to every mask while the bands are formed and to none when they are counted.

    A pixel is in the band of its class exactly when the (2 width + 1)-square around it leaves the image or holds
    another class. So a running minimum and maximum find the bands of all classes at once, at a cost that grows with
    neither the number of classes nor (but for a logarithm) the width.

    Args:
        label: `[H,W]` uint8 train ids.
        prediction: `[H,W]` uint8 class indices.
        num_classes: C, at most 255.
        ignore_index: label outside every class.
        width: of the bands in pixels, at least 1.

    Returns:
        `[C,2]`: intersection and union, in pixels.

    Raises:
        ValueError: width below 1, or shapes or dtypes differ from the above.
    """
    _check_maps(label, prediction)
    if width < 1:
        raise ValueError(f"width: expected at least 1 pixel, got {width}")
    void = label == ignore_index
    label_band = _band(label, void, width)
    prediction_band = _band(prediction, void, width)
    of_label = np.bincount(label[label_band], minlength=256)[:num_classes]
    of_prediction = np.bincount(prediction[prediction_band], minlength=256)[:num_classes]
    both = label_band & prediction_band & (label == prediction)
    intersection = np.bincount(label[both], minlength=256)[:num_classes]
    return np.stack([intersection, of_label + of_prediction - intersection], axis=1).astype(np.int64)


def boundary_iou(counts: NDArray[np.integer[Any]]) -> Float64:
    """Boundary IoU per class `[...,C]` from summed `boundary_counts` `[...,C,2]`; NaN for a class without a band."""
    return _ratio(counts[..., 0], counts[..., 1])


@dataclass(frozen=True)
class Interval:
    """A difference and its confidence interval.

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
    confidence: float = 0.95


def paired_bootstrap(
    confusions_a: NDArray[np.integer[Any]],
    confusions_b: NDArray[np.integer[Any]],
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Interval of the difference in mIoU, a - b, of two networks on the same images.

    Every resample draws units with replacement, the same for both networks, and takes both mIoU from the summed
    confusion matrices. The tails are those of Hesterberg's expanded percentile interval (The American Statistician
    69(4), 2015, section 4.3): the plain percentiles are too narrow for few units.

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
    sums_a, sums_b = _margins(confusions_a), _margins(confusions_b)
    unit: Literal["image", "group"] = "image"
    if groups is not None and len(set(groups)) > 1:
        unit = "group"
        number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        numbers = np.array([number_of[group] for group in groups])
        sums_a, sums_b = (_sum_by(sums, numbers, len(number_of)) for sums in (sums_a, sums_b))
    units = len(sums_a)
    difference = float(_miou_of_margins(sums_a.sum(axis=0)) - _miou_of_margins(sums_b.sum(axis=0)))
    if units < 2 or math.isnan(difference):
        return Interval(difference, -1.0, 1.0, units, unit, confidence)
    generator = np.random.default_rng(seed)
    differences = []
    for start in range(0, resamples, _BOOTSTRAP_CHUNK):
        count = min(_BOOTSTRAP_CHUNK, resamples - start)
        weights = generator.multinomial(units, np.full(units, 1 / units), size=count).astype(np.float64)
        mious_a, mious_b = (
            _miou_of_margins((weights @ sums.reshape(units, -1)).reshape(count, *sums.shape[1:]))
            for sums in (sums_a, sums_b)
        )
        differences.append(mious_a - mious_b)
    tail = stats.norm.cdf(math.sqrt(units / (units - 1)) * stats.t.ppf((1 - confidence) / 2, units - 1))
    low, high = np.nanquantile(np.concatenate(differences), [tail, 1 - tail])
    return Interval(difference, float(low), float(high), units, unit, confidence)


def t_interval(differences: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of paired differences, one per training seed.

    Raises:
        ValueError: fewer than two differences, from which no spread can be told.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"a t interval needs at least two seeds, got {len(values)}")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half, len(values), "seed", confidence)


def _check_maps(label: UInt8, prediction: UInt8) -> None:
    if label.ndim != 2 or label.shape != prediction.shape:
        raise ValueError(f"expected label and prediction [H,W] of one shape, got {label.shape} and {prediction.shape}")
    if label.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"expected label and prediction of uint8, got {label.dtype} and {prediction.dtype}")


def _iou(intersection: NDArray[Any], of_label: NDArray[Any], of_prediction: NDArray[Any]) -> Float64:
    return _ratio(intersection, of_label + of_prediction - intersection)


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Float64:
    """The quotient, NaN where the denominator is 0."""
    result = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean_of_present(values: Float64) -> Float64:
    """Mean over the last axis without NaN; NaN, and no warning, where there is nothing else."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


def _margins(confusions: NDArray[np.integer[Any]]) -> Float64:
    """`[N,C,C]` -> `[N,3,C]`: diagonal, row sums and column sums, all that IoU needs."""
    diagonal = np.diagonal(confusions, axis1=1, axis2=2)
    return np.stack([diagonal, confusions.sum(axis=2), confusions.sum(axis=1)], axis=1).astype(np.float64)


def _sum_by(sums: Float64, numbers: NDArray[np.integer[Any]], count: int) -> Float64:
    result = np.zeros((count, *sums.shape[1:]))
    np.add.at(result, numbers, sums)
    return result


def _miou_of_margins(margins: Float64) -> Float64:
    """`[...,3,C]` -> `[...]`."""
    return _mean_of_present(_iou(margins[..., 0, :], margins[..., 1, :], margins[..., 2, :]))


def _band(classes: UInt8, void: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels within `width` of the contour of their class, void ones left out: `[H,W]` bool."""
    lowest = _running(np.where(void, np.uint8(255), classes), width, np.minimum)
    highest = _running(np.where(void, np.uint8(0), classes), width, np.maximum)
    band = lowest < highest
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        band[edge] = True
    return band & ~void


def _running(values: UInt8, radius: int, extreme: np.ufunc) -> UInt8:
    """Minimum or maximum over the square of 2 radius + 1 pixels around every pixel, within the image.

    A window of any size is the union of two windows of the largest power of two within it, so that it takes a
    logarithmic number of whole-array operations.
    """
    for axis in (0, 1):
        moved = values if axis == 0 else values.T
        length = len(moved)
        reach = min(radius, length)
        # Repeating the edge changes no extreme: the edge pixel is inside every window that crosses it.
        padded = np.concatenate([np.repeat(moved[:1], reach, axis=0), moved, np.repeat(moved[-1:], reach, axis=0)])
        size, span = 2 * reach + 1, 1
        while 2 * span <= size:
            padded = extreme(padded[:-span], padded[span:])  # windows of 2 span pixels, by their first one
            span *= 2
        moved = extreme(padded[:length], padded[size - span : size - span + length])
        values = moved if axis == 0 else moved.T
    return values
