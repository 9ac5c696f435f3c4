"""The images that checks run on: real ones, and synthetic ones that hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from export.checks.examination.deviation import UInt8
from pipeline.data.datasets.shared.prepared import PreparedSplit
from serving.engines.runtimes.runtime import Runtime
from serving.images.geometry import place

LARGEST_BATCH = 8


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


@dataclass(frozen=True)
class ShapeRange:
    """Batch, height and width that an engine takes, both ends included; sides are multiples of the network's stride.

    Attributes:
        least, most: the corners.
        bounded: whether the engine has bounds of its own, such as a TensorRT plan built for these shapes.
    """

    least: tuple[int, int, int]
    most: tuple[int, int, int]
    bounded: bool = True

    @classmethod
    def of(cls, runtime: Runtime, stride: int, max_side: int) -> ShapeRange:
        """What `runtime` takes; sides without a bound of their own end at `max_side`, and so do corners."""
        longest = max(max_side // stride, 2) * stride
        low, high = runtime.size_range or ((stride, stride), (longest, longest))
        least, most = runtime.batch_range
        return cls(
            (least, *low),
            (most or LARGEST_BATCH, max(min(high[0], longest), low[0]), max(min(high[1], longest), low[1])),
            bounded=runtime.size_range is not None,
        )

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.least))} to {'x'.join(map(str, self.most))}"

    def clamp(self, batch: int, height: int, width: int, stride: int) -> tuple[int, int, int]:
        """The nearest shape that is taken; sides before padding keep what they lack to a multiple of the stride."""

        def side(length: int, axis: int) -> int:
            lacking = -length % stride
            return min(max(length + lacking, self.least[axis]), self.most[axis]) - lacking

        return min(max(batch, self.least[0]), self.most[0]), side(height, 1), side(width, 2)


def shapes_that_hurt(stride: int, shapes: ShapeRange) -> list[tuple[int, int, int]]:
    """Batch, height and width before padding: single pixels, odd sizes, the corners of the range, odd batches."""
    _, tallest, widest = shapes.most
    wanted = [
        (1, 1, 1),
        (1, 1, 2 * stride),
        (1, 2 * stride, 1),
        (1, stride, stride),
        (1, stride + 1, 3 * stride - 1),
        (1, 3 * stride - 1, stride + 1),
        (3, 2 * stride + 1, 3 * stride - 3),
        (LARGEST_BATCH, stride, 2 * stride),
        (1, stride, widest),
        (1, tallest, stride),
        (1, tallest, widest),
    ]
    return list(dict.fromkeys(shapes.clamp(*shape, stride) for shape in wanted))


def extremes(count: int, height: int, width: int) -> list[Batch]:
    """The ends of uint8: all 0, all 255, and both side by side as finely and as coarsely as can be; `count` alike."""
    rows, columns = np.mgrid[:height, :width]
    chequered = ((rows + columns) % 2 * 255).astype(np.uint8)
    halves = (columns >= width // 2).astype(np.uint8) * np.uint8(255)
    planes = {
        "all 0": np.zeros((height, width), np.uint8),
        "all 255": np.full((height, width), 255, np.uint8),
        "chequered 0 and 255": chequered,
        "half 0, half 255": halves,
    }
    batches = [Batch(name, np.tile(plane[None, :, :, None], (count, 1, 1, 3))) for name, plane in planes.items()]
    for channel, name in enumerate(("red", "green", "blue")):
        image = np.zeros((count, height, width, 3), np.uint8)
        image[..., channel] = 255
        batches.append(Batch(f"pure {name}", image))
    return batches
