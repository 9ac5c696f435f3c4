"""Judging a predictor on a split: counts per image at the labels' own resolution, and what follows from them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.evaluate import InferenceProtocol
from pipeline.data.prepared import PreparedSplit
from pipeline.metrics import (
    Interval,
    boundary_counts,
    boundary_iou,
    boundary_width,
    confusion_matrix,
    iou_per_class,
    mean_iou,
    paired_bootstrap,
)
from pipeline.models.layers import upsample
from pipeline.models.segmentor import Segmentor
from serving.errors import UserError
from serving.files import write_atomically
from serving.geometry import Placement, place, restore

UInt8 = NDArray[np.uint8]
Predict = Callable[[UInt8], UInt8]
"""Image `[H,W,3]` uint8 RGB -> mask `[H,W]` uint8 class indices."""

PLAIN = InferenceProtocol()


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
        """Mean IoU in [0,1] over the classes in labels or predictions, from the one confusion matrix of the split."""
        return mean_iou(self.confusion)

    @property
    def iou_per_class(self) -> NDArray[np.float64]:
        """`[C]` in [0,1]; NaN for a class in neither labels nor predictions."""
        return iou_per_class(self.confusion)

    @property
    def boundary_iou_per_class(self) -> NDArray[np.float64]:
        """`[C]` in [0,1]; NaN for a class in neither labels nor predictions."""
        return boundary_iou(self.boundary.sum(axis=0))

    @property
    def boundary_iou(self) -> float:
        """Mean boundary IoU in [0,1] over the classes in labels or predictions; NaN when there is none."""
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
        UserError: a file is gone or damaged, or image and label differ in size.
        ValueError: `predict` gave something other than `[H,W]` uint8 class indices.
    """
    count = len(split)
    confusions = np.zeros((count, num_classes, num_classes), dtype=np.int32)
    boundary = np.zeros((count, num_classes, 2), dtype=np.int64)
    sizes = set()
    for index in range(count):
        image, label = split.read_image(index), split.read_label(index)
        if image.shape[:2] != label.shape:
            raise UserError(
                f"{split.name(index)}: the image is {image.shape[0]}x{image.shape[1]}, its label "
                f"{label.shape[0]}x{label.shape[1]}; a file changed since it was prepared: run prepare again"
            )
        mask = predict(image)
        width = boundary_width(label.shape[0], label.shape[1], boundary_ratio)
        confusions[index] = confusion_matrix(label, mask, num_classes, ignore_index)
        boundary[index] = boundary_counts(label, mask, num_classes, ignore_index, width)
        sizes.add((label.shape[0], label.shape[1]))
        if progress is not None:
            progress(index + 1, count)
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


def compare(first: Evaluation, second: Evaluation, *, resamples: int, seed: int) -> Interval:
    """Difference in mIoU, first - second, with its paired bootstrap interval: over sequences where known, else images.

    Raises:
        ValueError: the two are not of the same images.
    """
    if first.names != second.names:
        raise ValueError("the two evaluations are not of the same images in the same order")
    return paired_bootstrap(first.confusions, second.confusions, groups=first.groups, resamples=resamples, seed=seed)


def segmentor_predictor(
    segmentor: Segmentor,
    device: torch.device,
    *,
    resize: tuple[int, int] | None = None,
    protocol: InferenceProtocol = PLAIN,
) -> Predict:
    """A predictor that runs a segmentor in PyTorch.

    By the plain protocol it computes what the exported graph and serving do together: place, normalise, run, upsample
    the logits to the padded size, argmax, restore. Otherwise the logits of every scale and mirror image are brought to
    the size of the image (or of `resize`), and the class probabilities are averaged.

    Args:
        segmentor: in evaluation mode, on `device`.
        device: where it runs.
        resize: height and width that every image is resized to first, or None.
        protocol: scales and flip.

    Returns:
        Image `[H,W,3]` uint8 -> mask `[H,W]` uint8. Raises ValueError when called in training mode.
    """

    def run(image: UInt8, size: tuple[int, int] | None) -> tuple[Tensor, Placement]:
        """Logits `[1,C,h,w]` at the padded size."""
        placed, placement = place(image, stride=segmentor.stride, resize=size)
        pixels = torch.from_numpy(np.array(placed)).to(device).permute(2, 0, 1)[None]
        logits = segmentor(segmentor.normalise(pixels))
        return upsample(logits, (placement.padded_height, placement.padded_width)), placement

    def plain(image: UInt8) -> UInt8:
        logits, placement = run(image, resize)
        return restore(_argmax(logits), placement)

    def averaged(image: UInt8) -> UInt8:
        height, width = resize or image.shape[:2]
        total: Tensor | None = None
        for scale in protocol.scales:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            for mirrored in (False, True) if protocol.flip else (False,):
                logits, placement = run(image[:, ::-1] if mirrored else image, size)
                logits = logits[..., : placement.resized_height, : placement.resized_width]
                probabilities = upsample(logits.flip(-1) if mirrored else logits, (height, width)).softmax(dim=1)
                total = probabilities if total is None else total.add_(probabilities)
        assert total is not None, "a protocol has at least one scale"
        return restore(_argmax(total), Placement(image.shape[0], image.shape[1], height, width, height, width))

    def predict(image: UInt8) -> UInt8:
        if segmentor.training:
            raise ValueError("the segmentor is in training mode; call its eval() first")
        with torch.inference_mode():
            return plain(image) if protocol.plain else averaged(image)

    return predict


def _argmax(scores: Tensor) -> UInt8:
    """`[1,C,H,W]` -> `[H,W]` uint8."""
    mask: UInt8 = scores.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
    return mask


def _sizes(sizes: set[tuple[int, int]]) -> str:
    shown = [f"{height}x{width}" for height, width in (min(sizes), max(sizes))] if sizes else []
    return " to ".join(dict.fromkeys(shown)) or "size"
