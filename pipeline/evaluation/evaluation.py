"""Judging a predictor on a split: counts per image at the labels' own resolution, and what follows from them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import (
    boundary_counts,
    boundary_iou,
    boundary_width,
    confusion_matrix,
    iou_per_class,
    mean_iou,
)
from pipeline.evaluation.paired import PairedDifference, paired_bootstrap
from serving.contract.errors import UserError
from serving.contract.files import write_atomically

if TYPE_CHECKING:
    from pipeline.data.datasets.shared.prepared import PreparedSplit

UInt8 = NDArray[np.uint8]
Predict = Callable[[UInt8], UInt8]
"""Image `[H,W,3]` uint8 RGB -> mask `[H,W]` uint8 class indices."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a predictor came to on a split, image by image.

    Attributes:
        confusions: `[N,C,C]` int32, rows labels, columns predictions.
        boundary: `[N,C,2]` int64, intersection and union of the boundary bands.
        names: of the N images.
        sequences: the recording each image is from, or None.
        protocol: how the numbers came about, in words.
    """

    confusions: NDArray[np.int32]
    boundary: NDArray[np.int64]
    names: tuple[str, ...]
    sequences: tuple[str | None, ...]
    protocol: str

    @property
    def confusion(self) -> NDArray[np.int64]:
        """`[C,C]` of the whole split."""
        total: NDArray[np.int64] = self.confusions.sum(axis=0, dtype=np.int64)
        return total

    @property
    def miou(self) -> float:
        """Mean IoU in [0,1] over the classes with ground truth, from the one confusion matrix of the split."""
        return mean_iou(self.confusion)

    @property
    def iou_per_class(self) -> NDArray[np.float64]:
        """`[C]` in [0,1]; NaN for a class without ground truth."""
        return iou_per_class(self.confusion)

    @property
    def boundary_iou_per_class(self) -> NDArray[np.float64]:
        """`[C]` in [0,1]; NaN for a class without ground truth."""
        return boundary_iou(self.boundary.sum(axis=0), self.confusion)

    @property
    def boundary_iou(self) -> float:
        """Mean boundary IoU in [0,1] over the classes with ground truth; NaN when there is none."""
        values = self.boundary_iou_per_class
        present = values[~np.isnan(values)]
        return float(present.mean()) if len(present) else float("nan")

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The sequence of each image where all are known: the units that a bootstrap may resample."""
        known = tuple(sequence for sequence in self.sequences if sequence is not None)
        return known if len(known) == len(self.sequences) else None

    def save(self, path: Path) -> None:
        """Write a .npz, atomically; equal evaluations give equal bytes."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            confusions=self.confusions,
            boundary=self.boundary,
            names=np.array(self.names, dtype=np.str_),
            sequences=np.array([sequence or "" for sequence in self.sequences], dtype=np.str_),
            in_sequence=np.array([sequence is not None for sequence in self.sequences], dtype=np.bool_),
            protocol=np.array(self.protocol, dtype=np.str_),
        )
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read what `save` wrote. Raises UserError when it is missing or something else."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # numpy leaks a damaged file
                pairs = zip(arrays["sequences"].tolist(), arrays["in_sequence"].tolist(), strict=True)
                return cls(
                    confusions=arrays["confusions"],
                    boundary=arrays["boundary"],
                    names=tuple(arrays["names"].tolist()),
                    sequences=tuple(sequence if known else None for sequence, known in pairs),
                    protocol=str(arrays["protocol"]),
                )
        except FileNotFoundError:
            raise UserError(f"{path}: no such evaluation; run the stage that writes it first") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: not an evaluation ({error}); run the stage that writes it again") from error


def evaluate(
    predict: Predict,
    split: PreparedSplit,
    num_classes: int,
    ignore_index: int,
    *,
    boundary_ratio: float = 0.02,
    protocol: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `predict` on every image of a split and count. One image is in memory at a time.

    Args:
        predict: from an image to its mask, at the image's own resolution.
        split: images and labels; labels are used as they are, never resized.
        num_classes: C.
        ignore_index: label outside every class.
        boundary_ratio: width of the boundary bands as a share of the image's diagonal.
        protocol: what `predict` does, in words; number of images and resolution are added.
        progress: called as `progress(done, total)` after every image.

    Raises:
        UserError: a file is gone or not the one that was prepared, or no pixel of the split is labelled.
        ValueError: `predict` gave something other than `[H,W]` uint8 class indices.
    """
    count = len(split)
    confusions = np.zeros((count, num_classes, num_classes), dtype=np.int32)
    boundary = np.zeros((count, num_classes, 2), dtype=np.int64)
    sizes = set()
    # Size by size: what plans its kernels for the shape of its input plans once for each.
    for done, index in enumerate(sorted(range(count), key=split.size), start=1):
        image, label = split.read_image(index), split.read_label(index)
        mask = predict(image)
        width = boundary_width(label.shape[0], label.shape[1], boundary_ratio)
        confusions[index] = confusion_matrix(label, mask, num_classes, ignore_index)
        boundary[index] = boundary_counts(label, mask, num_classes, ignore_index, width)
        sizes.add((label.shape[0], label.shape[1]))
        if progress is not None:
            progress(done, count)
    _require_labelled(confusions, count)
    stated = [protocol] if protocol else []
    stated.append(f"{count} images, labels at their original {_sizes(sizes)}")
    stated.append(f"boundary bands of {boundary_ratio:.3g} of the diagonal")
    return Evaluation(
        confusions=confusions,
        boundary=boundary,
        names=tuple(split.name(index) for index in range(count)),
        sequences=tuple(split.sequence(index) for index in range(count)),
        protocol=", ".join(stated),
    )


def evaluate_miou(
    predict: Predict,
    split: PreparedSplit,
    num_classes: int,
    ignore_index: int,
    *,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """The mIoU in [0,1] that `evaluate` comes to, without the counts along boundaries, which take as long as decoding.

    Args:
        predict: from an image to its mask, at the image's own resolution.
        split: images and labels; labels are used as they are, never resized.
        num_classes: C.
        ignore_index: label outside every class.
        threads: read and decode ahead, two images each; 0 reads every image when its turn comes.
        progress: called as `progress(done, total)` after every image.

    Raises:
        UserError: a file is gone or not the one that was prepared, or no pixel of the split is labelled.
        ValueError: `predict` gave something other than `[H,W]` uint8 class indices.
    """
    confusion = count_confusion(predict, split, num_classes, ignore_index, threads=threads, progress=progress)
    return split_miou(confusion, len(split))


def count_confusion(
    predict: Predict,
    split: PreparedSplit,
    num_classes: int,
    ignore_index: int,
    *,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
    part: slice = slice(None),
) -> NDArray[np.int64]:
    """`[C,C]` over a split, or over a part of it: rows labels, columns predictions.

    Args:
        predict: from an image to its mask, at the image's own resolution.
        split: images and labels.
        num_classes: C.
        ignore_index: label outside every class.
        threads: as of `evaluate_miou`.
        progress: called as `progress(done, total)` after every image.
        part: which of the images, in the order of their sizes.

    Raises:
        UserError: a file is gone or not the one that was prepared.
        ValueError: `predict` gave something other than `[H,W]` uint8 class indices.
    """
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    order = sorted(range(len(split)), key=split.size)[part]
    with closing(_pairs(split, order, threads)) as pairs:
        for done, (image, label) in enumerate(pairs, start=1):
            confusion += confusion_matrix(label, predict(image), num_classes, ignore_index)
            if progress is not None:
                progress(done, len(order))
    return confusion


def split_miou(confusion: NDArray[np.int64], count: int) -> float:
    """Mean IoU in [0,1] of the whole split of `count` images. Raises UserError where none of its pixels is labelled."""
    _require_labelled(confusion, count)
    return mean_iou(confusion)


def _pairs(split: PreparedSplit, order: Sequence[int], threads: int) -> Generator[tuple[UInt8, UInt8]]:
    """Image and label of every index, in this order."""

    def read(index: int) -> tuple[UInt8, UInt8]:
        return split.read_image(index), split.read_label(index)

    if not threads:
        yield from map(read, order)
        return
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes without holding the interpreter's lock
        ahead: deque[Future[tuple[UInt8, UInt8]]] = deque()
        try:
            for index in order:
                ahead.append(pool.submit(read, index))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _require_labelled(confusions: NDArray[Any], count: int) -> None:
    if not confusions.any():
        raise UserError(
            f"none of the {count} images to evaluate on has a labelled pixel, so that there is no mIoU: label some of "
            "them, or see whether prepare reads the labels as they are meant (docs/datasets.md)"
        )


def miou_difference(first: Evaluation, second: Evaluation, *, resamples: int, seed: int) -> PairedDifference:
    """Difference in mIoU, first - second, with its paired bootstrap interval: over sequences where known, else images.

    Raises:
        ValueError: the two are not of the same images.
    """
    if first.names != second.names:
        raise ValueError("the two evaluations are not of the same images in the same order")
    return paired_bootstrap(first.confusions, second.confusions, groups=first.groups, resamples=resamples, seed=seed)


def _sizes(sizes: set[tuple[int, int]]) -> str:
    shown = [f"{height}x{width}" for height, width in (min(sizes), max(sizes))] if sizes else []
    return " to ".join(dict.fromkeys(shown)) or "size"
