"""Image files to uint8 arrays, and masks and images to files, whole or not at all."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.files import write_atomically
from serving.images.decoding import MAX_PIXELS, decode_image

UInt8 = NDArray[np.uint8]

MAX_JPEG_SIDE = 65500  # pixels, of libjpeg


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read an image as the eye sees it: the EXIF orientation is applied; grey and palette images become RGB.

    An alpha channel is dropped (the colours below it count, as readers of training data take them). 16-bit PNG, PGM and
    PPM are scaled from their full range to 0..255, unless they use so little of it that they may hold 12-bit values as
    they are; other files of more than 8 bits are refused, since what their numbers mean is not written in them. Colour
    profiles are not applied.

    Args:
        path: a JPEG, PNG, BMP, WebP, TIFF, PPM or PGM file, whatever its name.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        `[H,W,3]` uint8, RGB.

    Raises:
        UserError: missing, unreadable, truncated, no image, too large, several frames, or more than 8 bits per channel.
    """
    with open_file(path) as file:
        return decode_image(file, str(path), max_pixels=max_pixels).pixels


@contextmanager
def open_file(path: Path | str) -> Iterator[BinaryIO]:
    """Open a file for its bytes. What is no file (a pipe or a device may never end) is refused without waiting.

    Raises:
        UserError: missing, unreadable, or no file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(handle).st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read: {reason or error}") from error
    with os.fdopen(handle, "rb") if stat.S_ISREG(mode) else _closing(handle) as file:
        if file is None:
            what = "Is a directory" if stat.S_ISDIR(mode) else "is a pipe, a socket or a device, no file"
            raise UserError(f"{path}: cannot be read: {what}")
        yield file


def write_mask(path: Path, mask: UInt8, palette: Sequence[tuple[int, int, int]], *, mark: str = "") -> None:
    """Write a mask as an index PNG: the pixel values are the classes, the palette shows them. Atomic.

    Args:
        path: the file to write.
        mask: `[H,W]` uint8 class indices; indices beyond the palette (the ignore index) show black.
        palette: RGB per class.
        mark: kept in the file as the text `Software`; none where it is empty.

    Raises:
        UserError: the file cannot be written.
    """
    image = Image.fromarray(mask)
    # All 256 entries: with fewer, Pillow packs pixels into less than 8 bits and cuts an ignore index of 255 short.
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    image.putpalette(colors.tobytes())
    _write(path, image, "PNG", mark)


def write_image(path: Path, image: UInt8, *, mark: str = "") -> None:
    """Write an `[H,W,3]` RGB, `[H,W,4]` RGBA or `[H,W]` grey uint8 image, as JPEG where the name ends so, else as PNG.

    Atomic. A mark is kept as the PNG's text `Software` or the JPEG's comment.

    Raises:
        UserError: the file cannot be written.
    """
    _write(path, Image.fromarray(image), "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG", mark)


@contextmanager
def _closing(handle: int) -> Iterator[None]:
    try:
        yield None
    finally:
        os.close(handle)


class _NamedBuffer(io.BytesIO):
    """Bytes with a file name: told the format by its ending, Pillow loads that one encoder and not its usual five."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def _write(path: Path, image: Image.Image, name: str, mark: str) -> None:
    buffer = _NamedBuffer(f"image.{name.lower()}")
    if name == "JPEG":
        if max(image.size) > MAX_JPEG_SIDE:
            raise UserError(
                f"{path}: cannot be written: {image.width}x{image.height} pixels, a JPEG has at most {MAX_JPEG_SIDE} a "
                "side; choose a format in PNG, such as color"
            )
        image.save(buffer, quality=90, comment=mark.encode() or None)
    else:
        # Masks are a third larger than at Pillow's level 6, in half the time.
        image.save(buffer, compress_level=3, pnginfo=png_text(mark) if mark else None)
    write_atomically(path, buffer.getvalue())


def png_text(mark: str) -> Any:
    """The text `Software` for a PNG of Pillow's."""
    from PIL.PngImagePlugin import PngInfo  # only now: loading the encoder costs every import otherwise

    text = PngInfo()
    text.add_text("Software", mark)
    return text
