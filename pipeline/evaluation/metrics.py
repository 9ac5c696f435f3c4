"""What a segmentation is measured by: confusion matrices, IoU and boundary IoU.

Everything is counted per image and added up afterwards, so that a dataset's number comes from one confusion matrix and
intervals can resample the images.

The mean is taken over the classes that have ground truth in the images counted, and over no others: the labels alone
settle which these are, so that two networks on the same images are always averaged over the same classes, and a few
pixels predicted as a class that no label shows cannot move the mean by a whole class. They are not lost: each is a
false negative of the class that the label does show. So do Detectron2's evaluation of semantic segmentation
(`SemSegEvaluator`) and, since all of their classes occur, the benchmarks of PASCAL VOC, Cityscapes and ADE20K.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


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

    Example:
        >>> label, prediction = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
        >>> confusion_matrix(label, prediction, num_classes=2, ignore_index=255)
        array([[1, 1],
               [0, 1]])
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
        `[...,C]` in [0,1]; NaN for a class without ground truth.

    Example:
        >>> iou_per_class(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
        array([0.75, 0.8 ,  nan])
    """
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return iou(intersection, confusion.sum(axis=-1), confusion.sum(axis=-2))


def mean_iou(confusion: NDArray[np.integer[Any]]) -> float:
    """Mean of `iou_per_class` of a matrix `[C,C]`, in [0,1], over the classes with ground truth; NaN when none has."""
    return float(mean_of_present(iou_per_class(confusion)))


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


def boundary_iou(counts: NDArray[np.integer[Any]], confusion: NDArray[np.integer[Any]]) -> Float64:
    """Boundary IoU of every class.

    Args:
        counts: summed `boundary_counts`, `[...,C,2]`.
        confusion: of the same images, `[...,C,C]`: it tells which classes have ground truth.

    Returns:
        `[...,C]` in [0,1]; NaN for a class without ground truth.
    """
    return _ratio(counts[..., 0], np.where(confusion.sum(axis=-1) > 0, counts[..., 1], 0))


def _check_maps(label: UInt8, prediction: UInt8) -> None:
    if label.ndim != 2 or label.shape != prediction.shape:
        raise ValueError(f"expected label and prediction [H,W] of one shape, got {label.shape} and {prediction.shape}")
    if label.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"expected label and prediction of uint8, got {label.dtype} and {prediction.dtype}")


def iou(intersection: NDArray[Any], of_label: NDArray[Any], of_prediction: NDArray[Any]) -> Float64:
    """Intersection over union `[...]` of counts of pixels `[...]`; NaN for a class without ground truth."""
    return _ratio(intersection, np.where(of_label > 0, of_label + of_prediction - intersection, 0))


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Float64:
    """The quotient, NaN where the denominator is 0."""
    result = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def mean_of_present(values: Float64) -> Float64:
    """Mean over the last axis without NaN; NaN, and no warning, where there is nothing else."""
    present = ~np.isnan(values)
    return _ratio(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


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
    logarithmic number of whole-array operations. By hand because `scipy.ndimage.minimum_filter`, which gives the same,
    takes 3.2 to 4.8 times as long on images of 192x256 and 360x480 and 1.5 to 1.9 times on 1024x2048.
    """
    for axis in (0, 1):
        moved = values if axis == 0 else values.T
        length = len(moved)
        reach = min(radius, length)
        # Repeating the edge changes no extreme: the edge pixel is inside every window that crosses it.
        padded = np.pad(moved, ((reach, reach), (0, 0)), mode="edge")
        size, span = 2 * reach + 1, 1
        while 2 * span <= size:
            padded = extreme(padded[:-span], padded[span:])  # windows of 2 span pixels, by their first one
            span *= 2
        moved = extreme(padded[:length], padded[size - span : size - span + length])
        values = moved if axis == 0 else moved.T
    return values
