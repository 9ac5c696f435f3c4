"""Batches of images without labels, each in two views: as the camera saw it, and harder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.data.reading.augmentation import Draw, jitter_colour
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig

# Purposes of the random streams that are derived from the seed, beside those of `TrainingBatches`.
_COLOUR, _BOX = 2, 3
# Share of a crop that a CutMix box covers, and its aspect ratio (French et al. 2020; UniMatch draws likewise).
_BOX_AREA = (0.02, 0.4)
_BOX_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class StrongView:
    """What makes the strong view of the weak one, beside scale, crop and flip, which both share.

    Attributes:
        colour: brightness, contrast and saturation are drawn from 1 ± this.
        cutmix: probability that a box of a crop is replaced by that of the next one of the batch.
    """

    colour: float
    cutmix: float


@dataclass(frozen=True)
class UnlabelledBatch:
    """One batch of images without labels.

    Attributes:
        weak: uint8 `[B,3,h,w]`: scale, crop and flip, in their own colours.
        strong: uint8 `[B,3,h,w]`: the same crops in other colours; boxes are not mixed yet.
        inside: bool `[B,h,w]`, false on the padding of an image smaller than the crop.
        boxes: bool `[B,h,w]`, where crop i shows crop i + 1 (the last one the first) in the mixed view.
    """

    weak: Tensor
    strong: Tensor
    inside: Tensor
    boxes: Tensor


class UnlabelledBatches:
    """Batches of unlabelled images, one per labelled batch; iterating again starts again.

    As in `TrainingBatches`, every epoch visits every image once, and what a batch holds follows from (seed, iteration)
    alone.

    Args:
        split: the images.
        config: the augmentation of the labelled images; its colours are those of the strong view's here.
        view: the strong view.
        batch_size: crops per batch.
        iterations: batches of the whole training.
        seed: of order and augmentation, at least 0.
        start_iteration: finished batches, when resuming.
        workers: as of `TrainingBatches`.
        positions: as of `TrainingBatches`.

    Raises:
        UserError: the split is empty. While iterating: as `TrainingBatches`.
    """

    def __init__(
        self,
        split: PreparedSplit,
        config: AugmentConfig,
        view: StrongView,
        *,
        batch_size: int,
        iterations: int,
        seed: int,
        start_iteration: int = 0,
        workers: int = 0,
        positions: range | None = None,
    ) -> None:
        weak = dataclasses.replace(config, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
        self._weak = TrainingBatches(
            _Outlines(split),
            weak,
            batch_size=batch_size,
            iterations=iterations,
            seed=seed,
            start_iteration=start_iteration,
            workers=workers,
            positions=positions,
        )
        self._batch_size = batch_size
        self._positions = range(batch_size) if positions is None else positions
        self._strong = dataclasses.replace(
            weak, brightness=view.colour, contrast=view.colour, saturation=view.colour, hue=config.hue
        )
        self._view = view
        self._seed = seed
        self._start = start_iteration

    def __len__(self) -> int:
        """Number of batches, those before `start_iteration` left out."""
        return len(self._weak)

    def __iter__(self) -> Generator[UnlabelledBatch]:
        """Yield the batches."""
        with closing(iter(self._weak)) as batches:  # ends the workers
            for iteration, (weak, outlines) in enumerate(batches, self._start):
                yield self._views(iteration, weak, outlines)

    def _views(self, iteration: int, weak: Tensor, outlines: Tensor) -> UnlabelledBatch:
        """The batch of one iteration, of its weak view and of what lies outside the images."""
        draws = [Draw.random(self._strong, self._stream(_COLOUR, iteration, i)) for i in self._positions]
        strong = torch.stack([jitter_colour(crop, draw) for crop, draw in zip(weak, draws, strict=True)])
        boxes = torch.zeros(outlines.shape, dtype=torch.bool)
        if self._batch_size > 1:  # a crop alone would be mixed with itself
            for own, position in enumerate(self._positions):
                rows, columns = draw_box(outlines.shape[1:], self._view.cutmix, self._stream(_BOX, iteration, position))
                boxes[own, rows, columns] = True
        return UnlabelledBatch(weak, strong, outlines == 0, boxes)

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))


def draw_box(size: tuple[int, ...], probability: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a random box, empty ones where none is drawn. The same numbers are taken in both cases.

    Args:
        size: height and width of the crop.
        probability: that there is a box.
        generator: source of the numbers.
    """
    height, width = size
    drawn, area, aspect, top, left = generator.random(5).tolist()
    if drawn >= probability:
        return slice(0), slice(0)
    pixels = height * width * (_BOX_AREA[0] + (_BOX_AREA[1] - _BOX_AREA[0]) * area)
    ratio = math.exp(math.log(_BOX_ASPECT[0]) + (math.log(_BOX_ASPECT[1]) - math.log(_BOX_ASPECT[0])) * aspect)
    rows = min(height, max(1, round(math.sqrt(pixels * ratio))))
    columns = min(width, max(1, round(math.sqrt(pixels / ratio))))
    first_row, first_column = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    return slice(first_row, first_row + rows), slice(first_column, first_column + columns)


class _Outlines:
    """Unlabelled images with maps of zeros: what a crop keeps of them is where there is an image."""

    def __init__(self, split: PreparedSplit) -> None:
        self._split = split
        self.name, self.size, self.read_image = split.name, split.size, split.read_image

    def __len__(self) -> int:
        return len(self._split)

    def read_label(self, index: int) -> NDArray[np.uint8]:
        return np.zeros(self._split.size(index), np.uint8)
