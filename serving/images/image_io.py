"""Image files to uint8 arrays and masks to files. Every refusal of a bad image lives here, each in one line.

Only the formats below are read, told by their first bytes: no other decoder of Pillow's (some start other programs)
ever sees a file.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.files import write_atomically

UInt8 = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: half a GiB as RGB

_FORMATS = {
    b"\xff\xd8\xff": ("JPEG", "Jpeg"),
    b"\x89PNG": ("PNG", "Png"),
    b"BM": ("BMP", "Bmp"),
    b"RIFF": ("WEBP", "WebP"),
    b"II*\0": ("TIFF", "Tiff"),
    b"MM\0*": ("TIFF", "Tiff"),
    b"P5": ("PPM", "Ppm"),
    b"P6": ("PPM", "Ppm"),
}

# What Pillow's decoders raise on damaged files, beside OSError.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, AssertionError),
    *(OverflowError, MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True)
class ListedImage:
    """An image to read.

    Attributes:
        path: the file.
        relative: its place below the folder that was named, or its bare name where the file itself was.
    """

    path: Path
    relative: PurePath


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Read an image as the eye sees it: the EXIF orientation is applied; grey and palette images become RGB.

    An alpha channel is dropped (the colours below it count, as readers of training data take them). 16-bit PNG and PGM
    are scaled from their full range to 0..255; other files of more than 8 bits are refused, since what their numbers
    mean is not written in them.

    Args:
        path: a JPEG, PNG, BMP, WebP, TIFF, PPM or PGM file, whatever its name.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        `[H,W,3]` uint8, RGB.

    Raises:
        UserError: missing, unreadable, truncated, no image, too large, several frames, or more than 8 bits per channel.
    """
    image_format = _sniff(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what matters is checked here
            with Image.open(path, formats=(image_format,)) as image:
                if image.width * image.height > max_pixels:
                    raise UserError(
                        f"{path}: {image.width}x{image.height} pixels; at most {max_pixels} are read: cut it into parts"
                    )
                if image_format != "JPEG" and getattr(image, "n_frames", 1) > 1:
                    frames = getattr(image, "n_frames", 1)
                    raise UserError(f"{path}: {frames} frames or pages; expected one image: save each as its own file")
                image.load()
                return _to_rgb(_upright(image), path)
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable {image_format} image: {reason}") from error


def write_mask(path: Path, mask: UInt8, palette: Sequence[tuple[int, int, int]]) -> None:
    """Write a mask as an index PNG: the pixel values are the classes, the palette shows them. Atomic.

    Args:
        path: the file to write.
        mask: `[H,W]` uint8 class indices; indices beyond the palette (the ignore index) show black.
        palette: RGB per class.

    Raises:
        UserError: the file cannot be written.
    """
    image = Image.fromarray(mask)
    # All 256 entries: with fewer, Pillow packs pixels into less than 8 bits and cuts an ignore index of 255 short.
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(palette)] = palette
    image.putpalette(colors.tobytes())
    _write(path, image, "PNG")


def write_image(path: Path, image: UInt8) -> None:
    """Write an `[H,W,3]` RGB or `[H,W]` grey uint8 image, as JPEG where the name ends so, else as PNG. Atomic.

    Raises:
        UserError: the file cannot be written.
    """
    _write(path, Image.fromarray(image), "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG")


def list_images(paths: Iterable[Path], *, exclude: Path | None = None) -> list[ListedImage]:
    """The images that `paths` stand for: files as named (whatever they are), folders with all image files below them.

    Args:
        paths: files and folders.
        exclude: a folder whose files are left out wherever it lies (the folder that results go to).

    Returns:
        Each file once, in the order of `paths`, folders sorted by name. Hidden files in folders are left out.

    Raises:
        UserError: a folder without any image.
    """
    excluded = exclude.resolve() if exclude else None
    listed: dict[Path, ListedImage] = {}
    empty: list[str] = []
    for path in paths:
        found = _walk(path, excluded) if path.is_dir() else [ListedImage(path, PurePath(path.name))]
        if not found:
            empty.append(str(path))
        for image in found:
            listed.setdefault(image.path.resolve(), image)
    if empty:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{', '.join(empty)}: no image in this folder; looked for {suffixes}")
    return list(listed.values())


def _walk(folder: Path, excluded: Path | None) -> list[ListedImage]:
    found: list[ListedImage] = []
    for directory, subdirectories, names in os.walk(folder):
        here = Path(directory)
        subdirectories[:] = sorted(
            name for name in subdirectories if not name.startswith(".") and (here / name).resolve() != excluded
        )
        found.extend(
            ListedImage(here / name, (here / name).relative_to(folder))
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        )
    return found


def _sniff(path: Path) -> str:
    """Pillow's name of the file's format, its decoder loaded."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read: {reason or error}") from error
    for magic, (image_format, module) in _FORMATS.items():
        if head.startswith(magic) and (magic != b"RIFF" or head[8:12] == b"WEBP"):
            importlib.import_module(f"PIL.{module}ImagePlugin")
            return image_format
    what = "an empty file" if not head else f"a file that starts with {head[:8]!r}"
    raise UserError(f"{path}: {what} is no image; expected JPEG, PNG, BMP, WebP, TIFF, PPM or PGM")


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation asks."""
    if image.format in ("JPEG", "MPO", "PNG", "WEBP") and "exif" not in image.info:
        return image  # also spares the import of Pillow's EXIF reader
    transposition = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(image.getexif().get(0x0112, 1))
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image, path: Path) -> UInt8:
    mode, image_format = image.mode, image.format
    sixteen_bit = mode.startswith("I;16") or (mode == "I" and image_format == "PPM")
    if sixteen_bit and image_format in ("PNG", "PPM", None):
        # The full range 0..65535 is 257 times 0..255 (PNG specification, 13.12; Pillow scales a PGM's to it).
        grey = np.clip((np.asarray(image).astype(np.int64) + 128) // 257, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode.startswith(("I", "F")):
        raise UserError(
            f"{path}: pixels of mode {mode} (more than 8 bits); expected 8 bits per channel: convert it first"
        )
    image.info.pop("transparency", None)
    if mode == "RGBa":  # alpha already multiplied in
        image = image.convert("RGBA")
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))


class _NamedBuffer(io.BytesIO):
    """Bytes with a file name: told the format by its ending, Pillow loads that one encoder and not its usual five."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


def _write(path: Path, image: Image.Image, image_format: str) -> None:
    buffer = _NamedBuffer(f"image.{image_format.lower()}")
    if image_format == "JPEG":
        image.save(buffer, quality=90)
    else:
        image.save(buffer, compress_level=3)  # masks a third larger than at Pillow's 6, in half the time
    write_atomically(path, buffer.getvalue())
