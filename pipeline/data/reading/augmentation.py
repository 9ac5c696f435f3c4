"""From a decoded image and its label to one training crop, uint8 throughout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pipeline.compute.torchvision_shim  # noqa: F401 - before torchvision

# isort: split
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from pipeline.data.datasets.shared.labels import IGNORE_INDEX
from pipeline.data.reading.config import AugmentConfig
from serving.images.geometry import resize_nearest

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601, as in torchvision's rgb_to_grayscale
_ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation")))


@dataclass(frozen=True)
class Draw:
    """The random part of one crop; what an image and a configuration make of it is not random.

    Attributes:
        scale: factor that the image is resized by.
        top: where the crop is, as a share in [0,1) of the room there is.
        left: the same, horizontally.
        flip: whether the crop is flipped horizontally.
        brightness: factor.
        contrast: factor.
        saturation: factor.
        hue: turn of the hue, in turns.
        order: in which brightness, contrast and saturation follow each other.
    """

    scale: float
    top: float
    left: float
    flip: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[str, ...] = _ORDERS[0]

    @classmethod
    def random(cls, config: AugmentConfig, generator: np.random.Generator) -> Draw:
        """Draw from `config`'s ranges. The same numbers are taken whatever the ranges are."""
        scale, top, left, flip, brightness, contrast, saturation, hue, order = generator.random(9).tolist()

        def factor(strength: float, uniform: float) -> float:
            return 1 + strength * (2 * uniform - 1)

        return cls(
            scale=config.scale[0] + (config.scale[1] - config.scale[0]) * scale,
            top=top,
            left=left,
            flip=flip < config.flip_probability,
            brightness=factor(config.brightness, brightness),
            contrast=factor(config.contrast, contrast),
            saturation=factor(config.saturation, saturation),
            hue=config.hue * (2 * hue - 1),
            order=_ORDERS[int(order * len(_ORDERS))],
        )


def augment(
    image: NDArray[np.uint8], label: NDArray[np.uint8], draw: Draw, config: AugmentConfig
) -> tuple[Tensor, Tensor]:
    """One training crop.

    Only the region that the crop shows is resized: a resize of the whole image, of which most is then cut away, would
    cost up to sixteen times as much. The region has whole source pixels, so that the factor differs from `draw.scale`
    by up to half a pixel per crop.

    Args:
        image: `[H,W,3]` RGB.
        label: `[H,W]` train ids.
        draw: the random part.
        config: crop size and padding colour.

    Returns:
        Image uint8 `[3,h,w]`, resized bilinearly with antialiasing, and label uint8 `[h,w]`, by the nearest pixel. An
        image smaller than the crop lies at its top left; the rest has the padding colour and is ignored.
    """
    rows = _Span.of(image.shape[0], config.crop[0], draw.scale, draw.top)
    columns = _Span.of(image.shape[1], config.crop[1], draw.scale, draw.left)
    pixels = torch.from_numpy(np.array(image[rows.slice, columns.slice])).permute(2, 0, 1)
    colour_first = rows.source * columns.source < rows.target * columns.target  # wherever there are fewer pixels
    if colour_first:
        pixels = jitter_colour(pixels, draw)
    size = [rows.target, columns.target]
    pixels = transforms.resize(pixels, size, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    if not colour_first:
        pixels = jitter_colour(pixels, draw)
    # Looks at pixel centres, as the bilinear resize does; torch's plain "nearest" is off by half a pixel.
    ids = torch.from_numpy(np.array(resize_nearest(label[rows.slice, columns.slice], rows.target, columns.target)))
    if draw.flip:
        pixels, ids = transforms.horizontal_flip(pixels), transforms.horizontal_flip(ids)
    if (rows.target, columns.target) == config.crop:
        return pixels, ids
    padded = torch.tensor(config.padding_colour, dtype=torch.uint8)[:, None, None].repeat(1, *config.crop)
    padded[:, : rows.target, : columns.target] = pixels
    padded_ids = torch.full(config.crop, IGNORE_INDEX, dtype=torch.uint8)
    padded_ids[: rows.target, : columns.target] = ids
    return padded, padded_ids


@dataclass(frozen=True)
class _Span:
    """One dimension of a crop: which source pixels, and how many pixels they become."""

    start: int
    source: int
    target: int

    @classmethod
    def of(cls, length: int, crop: int, scale: float, position: float) -> _Span:
        target = min(crop, max(1, round(length * scale)))
        source = length if target < crop else min(length, max(1, round(crop / scale)))
        return cls(start=int(position * (length - source + 1)), source=source, target=target)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.start + self.source)


def jitter_colour(image: Tensor, draw: Draw) -> Tensor:
    """Change brightness, contrast and saturation in the order of the draw, then the hue.

    The definitions are torchvision's (`adjust_brightness` and so on). There each takes a pass of its own over the image
    and rounds and clamps between them. All three are linear in the pixel x, its grey value g and the mean grey value,
    so that any sequence of them is `a x + b g + c` with three numbers: this computes those, and then one pass, rounded
    and clamped once, at a fifth of the time. The hue is not linear and is left to torchvision.

    Every operation on pixels is a single multiplication or addition, or exact in integers: the result does not depend
    on how many threads share the work.

    Args:
        image: uint8 `[3,h,w]` RGB.
        draw: factors and order.

    Returns:
        uint8 `[3,h,w]`, contiguous.
    """
    if (draw.brightness, draw.contrast, draw.saturation) != (1, 1, 1):
        values = image.contiguous().float()
        grey = values[0] * _LUMA[0]
        grey.add_(values[1] * _LUMA[1]).add_(values[2] * _LUMA[2])
        total_grey = (
            grey.add(0.5).to(torch.int16).sum(dtype=torch.int64)
        )  # whole numbers: any order of summing is exact
        a, b, c = _linear(draw, int(total_grey) / grey.numel())
        grey.mul_(b).add_(c + 0.5)  # the conversion to uint8 truncates
        # By way of int16: torch converts that vectorised, but floats to uint8 one by one, at five times the time.
        image = values.mul_(a).add_(grey).to(torch.int16).clamp_(0, 255).to(torch.uint8)
    if draw.hue:
        image = transforms.adjust_hue(image, draw.hue)
    return image.contiguous()


def _linear(draw: Draw, mean_grey: float) -> tuple[float, float, float]:
    """a, b, c of `a x + b g + c`, the draw's brightness, contrast and saturation one after the other.

    The grey value of `a x + b g + c` is `(a + b) g + c`, since the luma weights sum to one.
    """
    a, b, c = 1.0, 0.0, 0.0
    for name in draw.order:
        factor: float = getattr(draw, name)
        if name == "brightness":
            a, b, c = factor * a, factor * b, factor * c
        elif name == "contrast":  # f y + (1 - f) mean grey(y)
            a, b, c = factor * a, factor * b, factor * c + (1 - factor) * ((a + b) * mean_grey + c)
        else:  # saturation: f y + (1 - f) grey(y)
            a, b = factor * a, factor * b + (1 - factor) * (a + b)
    return a, b, c
