"""Images with their truth and masks: which are drawn, and how they become small files."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.metrics import confusion_matrix, iou_per_class, mean_iou
from serving.contract.errors import UserError
from serving.engines.predictor import Segmentation
from serving.render import encode_mask

UInt8 = NDArray[np.uint8]
Segment = Callable[[UInt8], Segmentation]
"""Image `[H,W,3]` uint8 RGB -> what an engine says of it."""

WIDTHS = (400, 300, 220, 160, 112)  # pixels; the first with which all pictures fit the budget is taken
CLASS_WIDTH = 240  # of the images that are drawn for a class alone
SHOWN_SHARE = 0.001  # of an image's labelled pixels: a class with fewer is a speck, its IoU 0 wherever it is missed
JPEG_QUALITY = 82

# What a pixel of `Picture.outcome` says, and its colour (Okabe and Ito 2008: apart for colour-blind readers too).
OUTCOMES = {
    "both right": (226, 230, 234),
    "only the method right": (0, 114, 178),
    "only the baseline right": (230, 159, 0),
    "both wrong": (86, 92, 100),
    "no label": (255, 255, 255),
}
_BOTH, _METHOD, _BASELINE, _NEITHER, _VOID = range(len(OUTCOMES))


@dataclass(frozen=True)
class Picture:
    """One image as the page shows it.

    Attributes:
        name: of the image.
        reason: why it is shown: `worst`, `typical`, or `worst of a class`.
        miou: of the method on this image alone, in [0,1].
        baseline_miou: of the baseline.
        class_iou: class -> the method's IoU on this image, of the classes that it shows (`SHOWN_SHARE`).
        class_place: class -> its place among all images that show it: 1 where the method is worst on it.
        files: `input` (JPEG), `truth`, `baseline`, `method` and `outcome` (PNG), of one size.
    """

    name: str
    reason: str
    miou: float
    baseline_miou: float
    class_iou: dict[str, float]
    class_place: dict[str, int]
    files: dict[str, bytes]


@dataclass(frozen=True)
class Pictures:
    """The drawn images, in the order they are shown, and what is odd about them.

    Attributes:
        pictures: worst first, then typical, then those that are drawn for a class alone.
        width: of the worst and the typical in pixels, at most.
        differing: names of images whose masks are not those that `verify` counted.
        confidences: label, mask and confidence of the method, `[H,W]` uint8 each, of every image; empty where the
            engine gives no confidence. Of the worst and the typical images alone.
        class_images: class -> how many of all images show it.
    """

    pictures: list[Picture]
    width: int
    differing: list[str]
    confidences: list[tuple[UInt8, UInt8, UInt8]]
    class_images: dict[str, int]


def chosen_images(mious: Sequence[float], count: int) -> list[tuple[int, str]]:
    """Which images are shown: the worst, in order, then those nearest to the median of the rest.

    Args:
        mious: mIoU of every image by itself; NaN for one without a labelled pixel, which is never chosen.
        count: how many at most; half of them are the worst.

    Returns:
        Pairs of an index and `worst` or `typical`.

    Example:
        >>> chosen_images([0.9, 0.1, 0.6, 0.5, 0.2], 4)
        [(1, 'worst'), (4, 'worst'), (2, 'typical'), (3, 'typical')]
    """
    known = sorted((value, index) for index, value in enumerate(mious) if not np.isnan(value))
    worst = [index for _, index in known[: (count + 1) // 2]]
    rest = known[len(worst) :]
    if not rest:
        return [(index, "worst") for index in worst]
    middle = float(np.median([value for value, _ in rest]))
    nearest = sorted(rest, key=lambda pair: (abs(pair[0] - middle), pair[1]))[: count - len(worst)]
    return [(index, "worst") for index in worst] + [(index, "typical") for _, index in nearest]


def worst_of_classes(confusions: NDArray[np.integer[Any]]) -> list[list[int]]:
    """For every class the images that show it, the one with the lowest IoU of the class first.

    Args:
        confusions: `[N,C,C]` of every image, rows labels, columns predictions.

    Example:
        >>> worst_of_classes(np.array([[[9, 1], [0, 5]], [[2, 8], [0, 0]], [[9, 0], [5, 5]]]))
        [[1, 2, 0], [2, 0]]
    """
    labelled = confusions.sum(axis=2)
    shown = labelled >= np.maximum(1, SHOWN_SHARE * labelled.sum(axis=1, keepdims=True))
    ious = np.where(shown, iou_per_class(confusions), np.inf)
    orders = np.argsort(ious, axis=0, kind="stable")
    return [orders[: shown[:, index].sum(), index].tolist() for index in range(shown.shape[1])]


def images_of_classes(worst: Sequence[Sequence[int]], drawn: Collection[int], per_class: int, count: int) -> list[int]:
    """Which images are drawn beside others so that the worst of every class are there.

    Args:
        worst: for every class its images, worst first.
        drawn: the images that are there already.
        per_class: how many of every class.
        count: how many at most; the worst of all classes come before any second worst.

    Example:
        >>> images_of_classes([[1, 2, 0], [2, 0]], [2], per_class=2, count=8)
        [1, 0]
    """
    wanted = [order[place] for place in range(per_class) for order in worst if place < len(order)]
    return [index for index in dict.fromkeys(wanted) if index not in drawn][:count]


def draw_pictures(
    prepared: Prepared,
    split: PreparedSplit,
    evaluations: tuple[Evaluation, Evaluation],
    engines: tuple[Segment, Segment],
    *,
    count: int = 12,
    budget: int = 2_200_000,
    per_class: int = 4,
    class_count: int = 40,
    class_budget: int = 900_000,
) -> Pictures:
    """Run both engines on the chosen images and draw what they say.

    Args:
        prepared: the dataset.
        split: that was evaluated.
        evaluations: of baseline and method on it.
        engines: of baseline and method.
        count: how many of the worst and typical images at most.
        budget: bytes that these may take; they are made smaller until they do.
        per_class: how many images of every class, where the method is worst on it, are drawn beside them.
        class_count: how many of those at most.
        class_budget: bytes that those may take; the last are left out where they would take more.

    Raises:
        UserError: the evaluations are not of this split, or an image cannot be read.
    """
    names = tuple(split.name(index) for index in range(len(split)))
    if any(evaluation.names != names for evaluation in evaluations):
        raise UserError("the images that were evaluated are not those of data/prepared; run verify again")
    baseline, method = evaluations
    chosen = chosen_images([mean_iou(confusion) for confusion in method.confusions], count)
    worst = worst_of_classes(method.confusions)
    extra = images_of_classes(worst, [index for index, _ in chosen], per_class, class_count)
    differing: list[str] = []
    confidences: list[tuple[UInt8, UInt8, UInt8]] = []

    def masks(index: int) -> tuple[UInt8, UInt8, UInt8, UInt8]:
        """Image, label, and what both engines say."""
        image, label = split.read_image(index), split.read_label(index)
        segmented = [segment(image) for segment in engines]
        found = (segmented[0].mask, segmented[1].mask)
        if segmented[1].confidence is not None and index not in extra:
            confidences.append((label, segmented[1].mask, segmented[1].confidence))
        for mask, evaluation in zip(found, evaluations, strict=True):
            counted = confusion_matrix(label, mask, prepared.num_classes, prepared.ignore_index)
            if not np.array_equal(counted, evaluation.confusions[index]):
                differing.append(split.name(index))
        return image, label, *found

    shown = [masks(index) for index, _ in chosen]
    for width in WIDTHS:
        files = [_files(*each, prepared, width) for each in shown]
        if _bytes(files) <= budget:
            break
    for index in extra:  # drawn one by one: there may be many of them, and large
        files.append(_files(*masks(index), prepared, CLASS_WIDTH))
        if _bytes(files[len(chosen) :]) > class_budget:
            files.pop()
            break
    places = [{index: place for place, index in enumerate(order, start=1)} for order in worst]
    pictures = []
    for (index, reason), content in zip(
        [*chosen, *((index, "worst of a class") for index in extra)], files, strict=False
    ):
        ious = iou_per_class(method.confusions[index]).tolist()
        known = [each for each, place in enumerate(places) if index in place]
        pictures.append(
            Picture(
                name=split.name(index),
                reason=reason,
                miou=mean_iou(method.confusions[index]),
                baseline_miou=mean_iou(baseline.confusions[index]),
                class_iou={prepared.class_names[each]: ious[each] for each in known},
                class_place={prepared.class_names[each]: places[each][index] for each in known},
                files=content,
            )
        )
    counts = {name: len(order) for name, order in zip(prepared.class_names, worst, strict=True)}
    return Pictures(pictures, width, list(dict.fromkeys(differing)), confidences, counts)


def outcome(label: UInt8, baseline: UInt8, method: UInt8, ignore_index: int) -> UInt8:
    """`[H,W]` uint8: which of the two masks is right at every pixel, as an index into `OUTCOMES`."""
    right = (baseline == label).astype(np.uint8) + 2 * (method == label).astype(np.uint8)
    result: UInt8 = np.array([_NEITHER, _BASELINE, _METHOD, _BOTH], dtype=np.uint8)[right]
    result[label == ignore_index] = _VOID
    return result


def _bytes(pictures: Sequence[dict[str, bytes]]) -> int:
    return sum(len(content) for each in pictures for content in each.values())


def _files(
    image: UInt8, label: UInt8, baseline: UInt8, method: UInt8, prepared: Prepared, width: int
) -> dict[str, bytes]:
    """The five pictures of one image, made smaller to `width` where it is wider."""
    rows, columns = label.shape
    size = (min(width, columns), max(1, round(rows * min(width, columns) / columns)))

    def small(mask: UInt8) -> UInt8:
        return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))

    buffer = io.BytesIO()
    photo = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    photo.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    result = outcome(label, baseline, method, prepared.ignore_index)
    return {
        "input": buffer.getvalue(),
        "truth": encode_mask(small(label), prepared.palette),
        "baseline": encode_mask(small(baseline), prepared.palette),
        "method": encode_mask(small(method), prepared.palette),
        "outcome": encode_mask(small(result), tuple(OUTCOMES.values())),
    }
