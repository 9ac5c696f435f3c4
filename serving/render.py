"""Masks for the eye: colours, overlays on the image, legends."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serving.images.image_io import png_text

UInt8 = NDArray[np.uint8]
Palette = Sequence[tuple[int, int, int]]


def color_mask(mask: UInt8, palette: Palette) -> UInt8:
    """Colour a mask.

    Args:
        mask: `[H,W]` uint8 class indices; indices beyond the palette (the ignore index) become black.
        palette: RGB per class.

    Returns:
        `[H,W,3]` uint8.

    Example:
        >>> color_mask(np.array([[0, 1]], np.uint8), ((0, 0, 0), (200, 0, 0))).tolist()
        [[[0, 0, 0], [200, 0, 0]]]
    """
    return _table(palette)[mask]


def overlay(image: UInt8, mask: UInt8, palette: Palette, *, opacity: float = 0.5) -> UInt8:
    """Lay the colours of a mask over its image; pixels beyond the palette show the image alone.

    Args:
        image: `[H,W,3]` uint8 RGB.
        mask: `[H,W]` uint8 class indices.
        palette: RGB per class.
        opacity: of the colours, in [0, 1].

    Returns:
        `[H,W,3]` uint8.

    Raises:
        ValueError: image and mask differ in size, or the opacity is out of range.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image of {image.shape[:2]} under a mask of {mask.shape}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity: expected in [0, 1], got {opacity}")
    # In 1/256 and integers: four times less memory than floats on a large image.
    weight = round(opacity * 256)
    weights = np.where(mask < len(palette), weight, 0).astype(np.uint16)[:, :, None]
    blended = (image * (256 - weights) + color_mask(mask, palette) * weights + 128) >> 8
    return blended.astype(np.uint8)


def cutout(image: UInt8, mask: UInt8, classes: Sequence[int]) -> UInt8:
    """Cut some classes out of an image: all else is transparent.

    Args:
        image: `[H,W,3]` uint8 RGB.
        mask: `[H,W]` uint8 class indices.
        classes: indices of the classes that stay.

    Returns:
        `[H,W,4]` uint8 RGBA; the colours of what is transparent are those of the image.

    Raises:
        ValueError: image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image of {image.shape[:2]} under a mask of {mask.shape}")
    opaque = np.zeros(256, np.uint8)
    opaque[list(classes)] = 255
    return np.concatenate([image, opaque[mask][:, :, None]], axis=2)


def encode_mask(mask: UInt8, palette: Palette, *, mark: str = "") -> bytes:
    """A mask as the bytes of an index PNG: the pixel values are the classes, the palette shows them.

    Args:
        mask: `[H,W]` uint8 class indices; indices beyond the palette (the ignore index) show black.
        palette: RGB per class.
        mark: kept in the file as the text `Software`; none where it is empty.
    """
    image = Image.fromarray(mask)
    image.putpalette(_table(palette).tobytes())  # all 256: with fewer, Pillow packs pixels into less than 8 bits
    return encode_image(image, "PNG", compress_level=3, pnginfo=png_text(mark) if mark else None)


def encode_image(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of an image's file.

    Args:
        image: to encode.
        name: Pillow's name of the format.
        options: of its encoder.
    """
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def legend(class_names: Sequence[str], palette: Palette, *, size: int = 16) -> UInt8:
    """A column of colour swatches with the class names beside them, dark on white; `class 3` for a name of `undrawn`.

    Args:
        class_names: one per class.
        palette: RGB per class.
        size: height of the text, in pixels.

    Returns:
        `[H,W,3]` uint8.
    """
    font = ImageFont.load_default(size)
    row, margin = size + 8, 8
    lacking = undrawn(class_names)
    names = [f"class {index}" if index in lacking else name for index, name in enumerate(class_names)]
    text_width = max(round(font.getlength(name)) for name in names)
    canvas = Image.new("RGB", (3 * margin + row + text_width, 2 * margin + row * len(names)), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (name, color) in enumerate(zip(names, palette, strict=True)):
        top = margin + index * row
        draw.rectangle((margin, top + 2, margin + row - 4, top + row - 4), fill=tuple(color), outline=(120, 120, 120))
        draw.text((2 * margin + row, top + row // 2), name, fill=(20, 20, 20), font=font, anchor="lm")
    return np.asarray(canvas)


def undrawn(class_names: Sequence[str]) -> list[int]:
    """Classes whose names hold characters that the legend's font, which is Pillow's own, draws as boxes or refuses.

    >>> undrawn(["road", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
    [1]
    """
    font = ImageFont.load_default(16)

    def drawn(character: str) -> bytes | None:
        try:
            return bytes(font.getmask(character))
        except UnicodeEncodeError:  # of the font that Pillow has where it is built without FreeType
            return None

    nothing = (None, drawn("\U0010ffff"))
    lacking = {each for each in set("".join(class_names)) if drawn(each) in nothing}
    return [index for index, name in enumerate(class_names) if not lacking.isdisjoint(name)]


def _table(palette: Palette) -> UInt8:
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table
