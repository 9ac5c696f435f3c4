"""Which images an engine is calibrated on: from the training split, by content, and never one that is reported on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.evaluation.metrics import confusion_matrix
from serving.contract.errors import UserError
from serving.images.geometry import Placement, place, restore

UInt8 = NDArray[np.uint8]
SPLIT = "train"
REPORTED = ("val", "test")


@dataclass(frozen=True)
class CalibrationImages:
    """Images of the training split, in two parts without a common image.

    Attributes:
        split: the training split.
        calibration: indices of the images whose activations give the ranges.
        held_out: indices of the images that accuracy is judged on while layers are chosen.
        excluded: number of training images left out because a reported split has the same content.
        stride: height and width that engines take are multiples of it.
        resize: (height, width) that images are resized to first, or None.
        ignore_index: label outside every class.
    """

    split: PreparedSplit
    calibration: tuple[int, ...]
    held_out: tuple[int, ...]
    excluded: int
    stride: int
    resize: tuple[int, int] | None
    ignore_index: int

    def batches(self, indices: Sequence[int]) -> Iterator[UInt8]:
        """Each image as an engine takes it: `[1,h,w,3]` uint8."""
        for index in indices:
            yield self._placed(index)[0]

    def labelled(self) -> Iterator[tuple[UInt8, Placement, UInt8]]:
        """Held-out images `[1,h,w,3]`, how they were placed, and their labels `[H,W]` at their own size."""
        for index in self.held_out:
            yield *self._placed(index), self.split.read_label(index)

    def _placed(self, index: int) -> tuple[UInt8, Placement]:
        image, placement = place(self.split.read_image(index), stride=self.stride, resize=self.resize)
        return image[None], placement

    def manifest_entry(self) -> dict[str, object]:
        """For the manifest: how many, which by hash, and that none is reported on."""
        parts: Mapping[str, Sequence[int]] = {"calibration": self.calibration, "held_out": self.held_out}
        return {
            "split": SPLIT,
            "not_in": list(REPORTED),
            "excluded_as_reported": self.excluded,
        } | {
            name: {"images": len(indices), "sha256": _joint_hash(self.split, indices)}
            for name, indices in parts.items()
        }


def choose(
    prepared: Prepared,
    *,
    calibration: int,
    held_out: int,
    seed: int,
    stride: int,
    resize: tuple[int, int] | None,
) -> CalibrationImages:
    """Draw images from the training split in the order of a hash of their content.

    The order depends on nothing but the bytes of the images and the seed: adding an image changes the choice by that
    image at most, and renaming files changes nothing.

    Args:
        prepared: the dataset.
        calibration: how many images give the ranges; fewer where the split is small.
        held_out: how many others accuracy is judged on, each with a labelled pixel.
        seed: another number, another choice.
        stride: of the engine.
        resize: height and width that the engine resizes to; None where it does not.

    Raises:
        UserError: there are not enough training images that no reported split holds, or none of them has a labelled
            pixel.
    """
    split = prepared.split(SPLIT)
    reported = {
        entry.image_sha256 for name in REPORTED if name in prepared.splits for entry in prepared.splits[name].entries
    }
    keys: dict[str, tuple[str, int]] = {}
    excluded = 0
    for index, entry in enumerate(split.entries):
        if entry.image_sha256 in reported:
            excluded += 1
            continue
        key = hashlib.sha256(f"{seed} {entry.image_sha256}".encode()).hexdigest()
        keys.setdefault(entry.image_sha256, (key, index))  # the same picture twice counts once
    order = [index for _, index in sorted(keys.values())]
    if len(order) < 2:
        raise UserError(
            f"calibration: {len(order)} images of the split {SPLIT!r} are not in {', '.join(REPORTED)} as well; "
            "expected at least 2: one to calibrate on and one to judge by"
        )
    # A small split is shared out in the proportion asked for.
    spared = min(held_out, max(1, len(order) * held_out // (calibration + held_out)))
    # Without a labelled pixel there is no accuracy; labels are read only until there are enough of them.
    labelled = (index for index in order if (split.read_label(index) != prepared.ignore_index).any())
    judged = tuple(islice(labelled, spared))
    if not judged:
        raise UserError(
            f"calibration: none of the {len(order)} images of the split {SPLIT!r} that are not in "
            f"{', '.join(REPORTED)} has a labelled pixel; expected at least one to judge by: label one"
        )
    chosen = CalibrationImages(
        split=split,
        calibration=tuple([index for index in order if index not in judged][:calibration]),
        held_out=judged,
        excluded=excluded,
        stride=stride,
        resize=resize,
        ignore_index=prepared.ignore_index,
    )
    _require_disjoint(chosen, reported)
    return chosen


def _require_disjoint(chosen: CalibrationImages, reported: set[str]) -> None:
    """Raise RuntimeError when an image is used twice or reported on: what follows would be worth nothing."""
    hashes = [
        {chosen.split.entries[index].image_sha256 for index in indices}
        for indices in (chosen.calibration, chosen.held_out)
    ]
    if hashes[0] & hashes[1] or (hashes[0] | hashes[1]) & reported:
        raise RuntimeError("calibration images are not disjoint from the images that accuracy is measured on")


def _joint_hash(split: PreparedSplit, indices: Sequence[int]) -> str:
    hashes = sorted(split.entries[index].image_sha256 for index in indices)
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def confusions(masks: Iterable[UInt8], images: CalibrationImages, num_classes: int) -> NDArray[np.int64]:
    """Confusion matrix `[C,C]` over the held-out images of an engine's masks `[1,h,w]`, one per image and in order."""
    total = np.zeros((num_classes, num_classes), np.int64)
    for mask, (_, placement, label) in zip(masks, images.labelled(), strict=True):
        total += confusion_matrix(label, restore(mask[0], placement), num_classes, images.ignore_index)
    return total
