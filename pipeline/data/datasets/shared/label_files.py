"""Label images as files hold them: the number or colour of every pixel, or one line that says why there is none.

Only formats that keep every pixel are read. Whatever could make a value mean something else than it seems to is
refused: lossy compression, several pages, more bands than a colour and its transparency, colours of 16 bits, numbers
stored with white as 0. What Pillow does on its own to numbers (it stretches those of few bits to 0..255) is undone.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.datasets.shared.labels import LabelError, UnreadableError
from serving.images.decoding import EXIF_TURNS, MAX_PIXELS, SILENCE, exif_orientation

# Formats that are opened: those that keep every pixel, and JPEG to say what is wrong with it.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG")
_LOSSLESS_TIFF = frozenset(
    {"raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "tiff_raw_16", "packbits"}
    | {"tiff_deflate", "lzma", "zstd"}
)
_ONE_CHANNEL = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I;16N", "I")
# Pillow stretches grey values of 2 and 4 bits to 0..255; optimisers like to write labels that way.
_STRETCH = {"L;2": 85, "L;4": 17}
_PHOTOMETRIC, _SAMPLES_PER_PIXEL = 262, 277  # TIFF tags
# What a PNG with an orientation holds: the name of its chunk, or the keyword of a text, neither of them compressed.
_PNG, _PLACES_IN_PNG = b"\x89PNG\r\n\x1a\n", (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

# What Pillow's decoders raise on damaged files, beside OSError; SyntaxError for some broken headers.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, AssertionError),
    *(OverflowError, RuntimeError, struct.error, zlib.error),
)


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A label image before anyone says what its values mean.

    Attributes:
        pixels: `[H,W]` whole numbers where the file has one channel (indices where it has a palette), else `[H,W,3]`
            uint8 RGB.
        mode: Pillow's name for how the file holds them.
        palette: `[N,3]` uint8 RGB of the indices, or None.
        transparent: `[H,W]` bool where not every pixel is opaque, or None.
        orientation: EXIF orientation that the file asked for; the pixels are turned already. 1 for none.
    """

    pixels: NDArray[np.integer]
    mode: str
    palette: NDArray[np.uint8] | None = None
    transparent: NDArray[np.bool_] | None = None
    orientation: int = 1

    @property
    def is_coloured(self) -> bool:
        """Whether every pixel has a colour of its own, not a number."""
        return self.pixels.ndim == 3

    def colours(self) -> NDArray[np.uint8]:
        """What the label looks like: `[H,W,3]` uint8 RGB. Raises ValueError where numbers have no colour."""
        if self.is_coloured:
            return self.pixels.astype(np.uint8, copy=False)
        if self.palette is not None:
            shown: NDArray[np.uint8] = self.palette[self.pixels]
            return shown
        if self.pixels.dtype != np.uint8:
            raise ValueError(f"numbers of {self.pixels.dtype} have no colours")
        grey = self.pixels * np.uint8(255 if self.mode == "1" else 1)
        return np.repeat(grey[:, :, None], 3, axis=2)


def read_label_image(path: Path, content: bytes | None = None) -> LabelImage:
    """Read a label image as it is.

    Args:
        path: a PNG, TIFF, BMP, GIF, PGM, PPM or lossless WebP, whatever its name.
        content: the file's bytes where they are known.

    Raises:
        UnreadableError: not an image, truncated, or not accessible.
        LabelError: an image that cannot be trusted to hold exact labels (see above), or a larger one than is read.
    """
    try:
        file = io.BytesIO(path.read_bytes() if content is None else content)
        # Pillow warns about damaged EXIF data, which then turns nothing, and of sizes below what is read.
        with SILENCE, Image.open(file, formats=_FORMATS) as image:
            _require_exact(image, file, path)
            raw_mode, top = _raw_mode(image)
            orientation = exif_orientation(image) or 1
            image.load()
            upright: Image.Image = image
            if orientation != 1 and image.format != "TIFF":  # which Pillow turns as it loads it
                upright = image.transpose(EXIF_TURNS[orientation])
            pixels, palette, transparent = _pixels(upright, path)
    except Image.DecompressionBombError as error:
        raise LabelError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UnreadableError(f"{path}: there is not enough memory to decode it") from error
    except _DECODER_ERRORS as error:
        raise UnreadableError(f"{path}: {_reason(error)}") from error
    if raw_mode in _STRETCH:
        pixels = pixels // pixels.dtype.type(_STRETCH[raw_mode])
    elif top is not None and pixels.ndim == 2:  # a PGM says its own largest value, and Pillow stretches to it
        full = 255 if pixels.dtype == np.uint8 else 65535
        pixels = np.rint(pixels * (top / full)).astype(pixels.dtype)
    return LabelImage(pixels, upright.mode, palette, transparent, orientation)


def label_orientation(path: Path, content: bytes | None = None) -> int:
    """EXIF orientation by which `read_label_image` turns a label; 1 for none, and for an array or a damaged file.

    Args:
        path: the file.
        content: its bytes where they are known.
    """
    try:
        content = path.read_bytes() if content is None else content
        # To ask Pillow is to decode a PNG, which has been decoded once already.
        if content.startswith(_PNG) and not any(place in content for place in _PLACES_IN_PNG):
            return 1
        with SILENCE, Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return exif_orientation(image) or 1
    except (*_DECODER_ERRORS, Image.DecompressionBombError, MemoryError):
        return 1


def read_index_image(path: Path, content: bytes | None = None) -> NDArray[np.integer]:
    """Read an index image as the ids it holds, whatever its palette.

    Args:
        path: a PNG (or another lossless format) of mode 1, L, P, I;16 or I.
        content: the file's bytes where they are known.

    Returns:
        `[H,W]` uint8, or uint16/int32 for files of more bits.

    Raises:
        UnreadableError: not an image, truncated, or not accessible.
        LabelError: more than one channel, or whatever `read_label_image` refuses.
    """
    label = read_label_image(path, content)
    if label.mode not in _ONE_CHANNEL:
        raise LabelError(
            f"{path}: a label of mode {label.mode}; expected one channel of class ids (mode L or P), not colours"
        )
    return label.pixels


def read_colour_image(path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
    """Read a label drawn in colours as `[H,W,3]` uint8 RGB.

    Raises:
        UnreadableError: not an image, truncated, or not accessible.
        LabelError: not a colour image, pixels that are not opaque, or whatever `read_label_image` refuses.
    """
    label = read_label_image(path, content)
    if not label.is_coloured and label.palette is None:
        raise LabelError(f"{path}: a label of mode {label.mode}; expected the colours of the classes (mode RGB)")
    if label.transparent is not None:
        raise LabelError(
            f"{path}: {int(label.transparent.sum())} pixels of this label are not opaque, so that their colours are "
            "not certain; save it without transparency"
        )
    return label.colours()


def _require_exact(image: Image.Image, file: io.BytesIO, path: Path) -> None:
    """Refuse, before anything is decoded, an image whose pixels cannot be exact labels."""
    name = image.format or ""
    if name in ("JPEG", "MPO"):
        raise LabelError(f"{path}: a label saved as JPEG has lost its exact ids; expected a PNG")
    if image.width * image.height > MAX_PIXELS:
        raise LabelError(f"{path}: {image.width}x{image.height} pixels; at most {MAX_PIXELS} are read")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise LabelError(f"{path}: {frames} pages or frames; expected one label: save each as its own file")
    if name == "WEBP" and not _is_lossless_webp(file.getvalue()):
        raise LabelError(f"{path}: a label saved as lossy WebP has lost its exact ids; expected a PNG")
    raw_mode, _ = _raw_mode(image)
    tags: Any = getattr(image, "tag_v2", {})
    compression = image.info.get("compression")
    if name == "TIFF" and compression not in _LOSSLESS_TIFF:
        raise LabelError(
            f"{path}: a TIFF with {compression} compression, which does not keep exact ids; expected a PNG, or a TIFF "
            "with LZW or Deflate"
        )
    if tags.get(_PHOTOMETRIC) == 0 or (image.mode in ("1", "L") and "I" in raw_mode.partition(";")[2]):
        raise LabelError(
            f"{path}: white is stored as 0 (MinIsWhite), so that what is stored and what is shown differ; save it as a "
            "PNG with the values that are meant"
        )
    bands = tags.get(_SAMPLES_PER_PIXEL, 1)
    if bands > len(image.getbands()) or image.mode not in (*_ONE_CHANNEL, "LA", "PA", "RGB", "RGBA"):
        raise LabelError(
            f"{path}: a label of mode {image.mode} with {max(bands, len(image.getbands()))} bands; expected one "
            "channel of class ids, or the colours of the classes (mode RGB)"
        )
    if ";16" in raw_mode and image.mode not in _ONE_CHANNEL:
        raise LabelError(f"{path}: colours of 16 bits; expected 8 bits per channel, as the colours of classes have")


def _pixels(
    image: Image.Image, path: Path
) -> tuple[NDArray[np.integer], NDArray[np.uint8] | None, NDArray[np.bool_] | None]:
    """Numbers or colours, palette and transparency of a loaded image."""
    mode = image.mode
    pixels: NDArray[np.integer] = np.asarray(image, dtype=np.uint8 if mode == "1" else None)
    palette, transparent = None, None
    if mode in ("LA", "PA", "RGBA"):
        transparent = pixels[..., -1] < 255
        pixels = pixels[..., 0] if mode != "RGBA" else pixels[..., :3]
    key = image.info.get("transparency")
    if mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        highest = int(pixels.max(initial=0))
        if highest >= len(palette):  # only where a file is damaged or strange; the indices are what counts
            palette = np.concatenate([palette, np.zeros((highest + 1 - len(palette), 3), np.uint8)])
        if key is not None:
            opacity = np.full(256, 255, np.uint8)
            if isinstance(key, bytes):
                opacity[: len(key)] = np.frombuffer(key, np.uint8)
            else:
                opacity[key] = 0
            transparent = opacity[pixels] < 255
    elif mode == "RGB" and isinstance(key, tuple):
        transparent = (pixels == np.array(key)).all(axis=-1)
    if transparent is not None and not transparent.any():
        transparent = None
    return pixels, palette, transparent


def _raw_mode(image: Image.Image) -> tuple[str, int | None]:
    """How the file stores its values, in Pillow's words, and the largest value where the file itself states one."""
    tiles: Any = getattr(image, "tile", [])
    if not tiles:
        return "", None
    decoder, arguments = tiles[0][0], tiles[0][3]
    if isinstance(arguments, str):
        return arguments, None
    first = str(arguments[0]) if arguments else ""
    return first, int(arguments[1]) if decoder in ("ppm", "ppm_plain") and len(arguments) > 1 else None


def _is_lossless_webp(content: bytes) -> bool:
    """Whether a WebP of one frame holds its pixels in a VP8L chunk (RFC 9649, section 2)."""
    position = 12
    while position + 8 <= len(content):
        kind, length = content[position : position + 4], struct.unpack_from("<I", content, position + 4)[0]
        if kind in (b"VP8L", b"VP8 "):
            return kind == b"VP8L"
        position += 8 + length + length % 2
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image, or a damaged one"
    return " ".join(str(error).split()) or type(error).__name__
