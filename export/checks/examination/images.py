"""The images that checks run on: real ones, and synthetic ones that hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from export.checks.examination.comparison import UInt8
from pipeline.data.prepared import PreparedSplit
from serving.images.geometry import place


@dataclass(frozen=True)
class Batch:
    """Images as an engine takes them.

    Attributes:
        name: what they are, for messages.
        images: `[B,h,w,3]` uint8 RGB, h and w multiples of the stride.
    """

    name: str
    images: UInt8


def image_batches(split: PreparedSplit, count: int, *, stride: int, resize: tuple[int, int] | None) -> Iterator[Batch]:
    """Up to `count` images of a split, spread evenly over it, each a batch of its own."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    for index in chosen.tolist():
        placed, _ = place(split.read_image(index), stride=stride, resize=resize)
        yield Batch(split.name(index), placed[None])


def scene(height: int, width: int, generator: np.random.Generator) -> UInt8:
    """A synthetic image `[height,width,3]`: patches of colour at several scales and noise, the whole range in use."""
    total = np.zeros((height, width, 3), np.float32)
    for cells in (2, 5, 13):
        coarse = generator.integers(0, 256, (cells, cells, 3), np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    total += generator.normal(0, 20, total.shape)
    low, high = float(total.min()), float(total.max())
    scaled: UInt8 = ((total - low) * (255 / max(high - low, 1e-6))).round().astype(np.uint8)
    return scaled


def padded_scenes(name: str, count: int, height: int, width: int, stride: int, seed: int) -> Batch:
    """A batch of `count` different scenes of `height` x `width`, padded to multiples of the stride as serving does."""
    generator = np.random.default_rng([seed, count, height, width])
    scenes = [place(scene(height, width, generator), stride=stride)[0] for _ in range(count)]
    return Batch(name, np.stack(scenes))


def shapes_that_hurt(stride: int, max_side: int) -> list[tuple[int, int, int]]:
    """Batch, height and width before padding: single pixels, odd sizes, the corners of the range, odd batches."""
    longest = max(max_side // stride, 2) * stride
    return [
        (1, 1, 1),
        (1, 1, 2 * stride),
        (1, 2 * stride, 1),
        (1, stride, stride),
        (1, stride + 1, 3 * stride - 1),
        (1, 3 * stride - 1, stride + 1),
        (3, 2 * stride + 1, 3 * stride - 3),
        (8, stride, 2 * stride),
        (1, stride, longest),
        (1, longest, stride),
        (1, longest, longest),
    ]


def extremes(stride: int) -> list[Batch]:
    """The ends of uint8: all 0, all 255, and both side by side as finely and as coarsely as can be."""
    height, width = 2 * stride, 3 * stride
    rows, columns = np.mgrid[:height, :width]
    chequered = ((rows + columns) % 2 * 255).astype(np.uint8)
    halves = (columns >= width // 2).astype(np.uint8) * np.uint8(255)
    planes = {
        "all 0": np.zeros((height, width), np.uint8),
        "all 255": np.full((height, width), 255, np.uint8),
        "chequered 0 and 255": chequered,
        "half 0, half 255": halves,
    }
    batches = [Batch(name, np.repeat(plane[None, :, :, None], 3, axis=3)) for name, plane in planes.items()]
    for channel, name in enumerate(("red", "green", "blue")):
        image = np.zeros((1, height, width, 3), np.uint8)
        image[..., channel] = 255
        batches.append(Batch(f"pure {name}", image))
    return batches
