"""The one geometry of images and masks, for training-time evaluation, verification and serving alike.

An image is resized (only where the network was made for one size), then padded at the bottom and right by repeating its
edge until height and width are multiples of the network's stride. A mask goes the way back: crop, then nearest.
Images too large to run at once are cut into overlapping tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

UInt8 = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Placement:
    """How an image was brought to the size that runs; what `restore` needs to go back. All in pixels.

    Attributes:
        height, width: of the image as it came.
        resized_height, resized_width: after the resize (equal to the above without one).
        padded_height, padded_width: as it runs; multiples of the stride.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    padded_height: int
    padded_width: int


def resize_image(image: UInt8, height: int, width: int) -> UInt8:
    """Resize an image by Pillow's bilinear filter (antialiased when it shrinks).

    Args:
        image: `[H,W,3]` uint8.
        height: wanted, in pixels.
        width: wanted, in pixels.

    Returns:
        `[height,width,3]` uint8; the same array when the size is right already.
    """
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def resize_nearest(values: NDArray[Scalar], height: int, width: int) -> NDArray[Scalar]:
    """Resize by taking the value at the nearest pixel centre, so that no new label can arise.

    Args:
        values: `[h,w]` or `[h,w,...]`, any dtype.
        height: wanted, in pixels.
        width: wanted, in pixels.

    Returns:
        `[height,width,...]` of the same dtype; the same array when the size is right already.

    Example:
        >>> resize_nearest(np.array([[0, 7]]), 2, 4)
        array([[0, 0, 7, 7],
               [0, 0, 7, 7]])
    """
    source_height, source_width = values.shape[:2]
    if (source_height, source_width) == (height, width):
        return values
    # Pixel i covers [i, i+1): its centre (i + 1/2) * source/target lies in source pixel floor of that; in integers,
    # so that no rounding of floats decides at exact halves.
    rows = (2 * np.arange(height) + 1) * source_height // (2 * height)
    columns = (2 * np.arange(width) + 1) * source_width // (2 * width)
    # One axis after the other: five times faster than indexing both at once.
    resized: NDArray[Scalar] = values.take(rows, axis=0).take(columns, axis=1)
    return resized


def place(image: UInt8, *, stride: int, resize: tuple[int, int] | None = None) -> tuple[UInt8, Placement]:
    """Bring an image to a size that a network of the given stride runs.

    Args:
        image: `[H,W,3]` uint8, H and W at least 1.
        stride: padded height and width are the next multiples of it.
        resize: (height, width) to resize to before padding; None keeps the image's own size.

    Returns:
        `[h,w,3]` uint8 and the placement that `restore` takes. The image itself when there is nothing to do.

    Example:
        >>> image, placement = place(np.zeros((100, 70, 3), np.uint8), stride=32)
        >>> image.shape
        (128, 96, 3)
        >>> restore(np.zeros((128, 96), np.uint8), placement).shape
        (100, 70)
    """
    height, width = image.shape[:2]
    resized_height, resized_width = resize or (height, width)
    image = resize_image(image, resized_height, resized_width)
    pad_bottom, pad_right = -resized_height % stride, -resized_width % stride
    if pad_bottom or pad_right:
        image = _pad_by_edge(image, pad_bottom, pad_right)
    placement = Placement(
        height, width, resized_height, resized_width, resized_height + pad_bottom, resized_width + pad_right
    )
    return image, placement


def _pad_by_edge(image: UInt8, bottom: int, right: int) -> UInt8:
    """`numpy.pad(mode="edge")` at two sides, without its copy per axis."""
    height, width = image.shape[:2]
    padded = np.empty((height + bottom, width + right, *image.shape[2:]), dtype=image.dtype)
    padded[:height, :width] = image
    padded[height:, :width] = image[-1:]
    padded[:, width:] = padded[:, width - 1 : width]
    return padded


def restore(mask: NDArray[Scalar], placement: Placement) -> NDArray[Scalar]:
    """Bring a mask of a placed image back to the size of the image as it came.

    Args:
        mask: `[padded_height,padded_width]` (further axes are kept), any dtype.
        placement: what `place` gave with the image.

    Returns:
        `[height,width]` of the same dtype.

    Raises:
        ValueError: the mask has another size than the placed image.
    """
    if mask.shape[:2] != (placement.padded_height, placement.padded_width):
        raise ValueError(
            f"mask of {mask.shape[0]}x{mask.shape[1]} for an image that ran at "
            f"{placement.padded_height}x{placement.padded_width}"
        )
    cropped = mask[: placement.resized_height, : placement.resized_width]
    return resize_nearest(cropped, placement.height, placement.width)


@dataclass(frozen=True)
class Tile:
    """A window of an image and the part of it whose labels are used. All in pixels of the whole image, half-open.

    Attributes:
        top, left, bottom, right: the window.
        keep_top, keep_left, keep_bottom, keep_right: inside the window; over all tiles these parts cover every pixel of
            the image exactly once, and lie as far from the cuts as they can.
    """

    top: int
    left: int
    bottom: int
    right: int
    keep_top: int
    keep_left: int
    keep_bottom: int
    keep_right: int


def tile(height: int, width: int, *, tile_height: int, tile_width: int, overlap: int) -> list[Tile]:
    """Cut an image into equal windows that overlap by at least `overlap` pixels.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        tile_height: of every window; an image smaller than that gives one window of its own size.
        tile_width: of every window, likewise.
        overlap: pixels that neighbours share at least; less than the sides of a tile.

    Returns:
        The windows, row by row.

    Raises:
        ValueError: the overlap is negative or not smaller than the tile.
    """
    if not 0 <= overlap < min(tile_height, tile_width):
        raise ValueError(f"overlap: expected in 0..{min(tile_height, tile_width) - 1}, got {overlap}")
    return [
        Tile(top, left, bottom, right, keep_top, keep_left, keep_bottom, keep_right)
        for top, bottom, keep_top, keep_bottom in _spans(height, tile_height, overlap)
        for left, right, keep_left, keep_right in _spans(width, tile_width, overlap)
    ]


def untile(masks: Sequence[NDArray[Scalar]], tiles: Sequence[Tile]) -> NDArray[Scalar]:
    """Put the masks of all tiles together.

    Args:
        masks: one `[bottom-top,right-left]` array per tile.
        tiles: what `tile` gave.

    Returns:
        `[H,W]` of the whole image.
    """
    height, width = max(part.bottom for part in tiles), max(part.right for part in tiles)
    whole = np.empty((height, width, *masks[0].shape[2:]), dtype=masks[0].dtype)
    for mask, part in zip(masks, tiles, strict=True):
        rows = slice(part.keep_top - part.top, part.keep_bottom - part.top)
        columns = slice(part.keep_left - part.left, part.keep_right - part.left)
        whole[part.keep_top : part.keep_bottom, part.keep_left : part.keep_right] = mask[rows, columns]
    return whole


def _spans(length: int, size: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, keep start, keep end) of the windows along one axis, spread evenly."""
    size = min(size, length)
    count = 1 if size == length else -(-(length - overlap) // (size - overlap))
    starts = [i * (length - size) // max(count - 1, 1) for i in range(count)]
    # Neighbours meet in the middle of what they share.
    cuts = [(start + size + following) // 2 for start, following in pairwise(starts)]
    keeps = [0, *cuts, length]
    for start, (keep_start, keep_end) in zip(starts, pairwise(keeps), strict=True):
        yield start, start + size, keep_start, keep_end
