"""From the bytes of one image file to RGB pixels. Every refusal of a bad image lives here, each in one line.

Only the formats of `serving.images.formats` are read, told by their first bytes: no other decoder of Pillow's (some
start other programs) ever sees a file.
"""

from __future__ import annotations

import importlib
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serving.contract.errors import UserError
from serving.images.formats import HEAD_BYTES, VIDEO, image_format, other_picture

UInt8 = NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: half a GiB as RGB

# Below this, no value of a 16-bit picture has either of its two highest bits: so look 10, 12 or 14 bits as they are.
_LEAST_MAXIMUM = 1 << 14

# TIFF tags: bits of a sample, samples of a pixel, kind of page (bit 0: a smaller copy of another), what marks a DNG.
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _NEW_SUBFILE_TYPE, _DNG_VERSION = 258, 277, 254, 50706
_SAMPLE_FORMAT, _SIGNED = 339, 2
# Compressions of fax machines. libtiff decodes damaged ones into other pixels, and tells nobody but standard error.
_COMPRESSION, _FAX = 259, (2, 3, 4, 32771)
_ORIENTATION = 0x0112
_PLACES_OF_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# What an EXIF orientation asks for, as Pillow names it.
EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on damaged files, beside OSError.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, AssertionError),
    *(OverflowError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True)
class DecodedImage:
    """An image as it runs.

    Attributes:
        pixels: `[H,W,3]` uint8, RGB.
        notes: what was done with it that its owner may want to know, in a few words each ("turned by its EXIF tag").
        orientation: EXIF orientation, 1 to 8, by which it was turned; 1 for none.
    """

    pixels: UInt8
    notes: tuple[str, ...] = ()
    orientation: int = 1


def image_size(file: BinaryIO, source: str) -> tuple[int, int]:
    """Height and width of an image as it is stored, from its header.

    Args:
        file: seekable, at its beginning.
        source: what to call it in messages.

    Raises:
        UserError: no image that is read.
    """
    name = _format(file.read(HEAD_BYTES), source)
    file.seek(0)
    try:
        with SILENCE, Image.open(file, formats=(name,)) as image:
            return image.height, image.width
    except _DECODER_ERRORS as error:
        raise UserError(f"{source}: not a readable {name} image") from error


def decode_image(file: BinaryIO, source: str, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image from an open file (or `io.BytesIO`), at its beginning; see `read_image`.

    Args:
        file: seekable.
        source: what to call it in messages.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        UserError: as `read_image`.
    """
    try:
        head = file.read(HEAD_BYTES)
        file.seek(0)
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror or error}") from error
    name = _format(head, source)
    try:
        # Pillow warns about odd metadata; what matters is checked here.
        with SILENCE, Image.open(file, formats=(name,)) as image:
            notes: list[str] = []
            _require_one_picture(image, name, source, max_pixels, notes)
            deep = _is_deep(image, name, source, notes)
            if name == "PPM":
                _require_one_map(file, image, deep, source)
            orientation = exif_orientation(image)
            image.load()
            pixels = _to_rgb(_upright(image, orientation, notes), deep, notes, source)
            return DecodedImage(pixels, tuple(notes), orientation or 1)
    except MemoryError as error:
        raise UserError(f"{source}: there is not enough memory to decode it") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{source}: not a readable {name} image: damaged, or of a kind that is not read") from error
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{source}: not a readable {name} image: {reason}") from error


def exif_orientation(image: Image.Image) -> int | None:
    """How an open image asks to be turned: 1 to 8, where 1 is not at all; None for an orientation that does not exist.

    Args:
        image: a TIFF must not be loaded yet, since Pillow turns it as it loads it.

    Raises:
        OSError, ValueError or their like: a damaged file.
    """
    if image.format == "PNG":
        image.load()  # it may be said behind the pixels
    # Where Pillow finds an orientation: EXIF, ImageMagick's EXIF in a PNG, XMP. Looking here first also spares the
    # import of Pillow's EXIF reader.
    if image.format != "TIFF" and not any(place in image.info for place in _PLACES_OF_ORIENTATION):
        return 1
    stated = image.getexif().get(_ORIENTATION, 1)
    return next((known for known in (1, *EXIF_TURNS) if known == stated), None)  # text, in some files


def _format(head: bytes, source: str) -> str:
    """Pillow's name of the file's format, its decoder loaded."""
    found = image_format(head)
    if found is not None:
        importlib.import_module(f"PIL.{found[1]}ImagePlugin")
        return found[0]
    other = other_picture(head)
    if other is not None:
        cure = "give it a video's ending" if other == VIDEO else "save it as PNG, JPEG or TIFF"
        raise UserError(f"{source}: {other} is not read{' as an image' if other == VIDEO else ''}; {cure}")
    what = "an empty file" if not head else f"a file that starts with {head[:8]!r}"
    raise UserError(f"{source}: {what} is no image; expected JPEG, PNG, BMP, WebP, TIFF, PPM or PGM")


def _require_one_picture(image: Image.Image, name: str, source: str, max_pixels: int, notes: list[str]) -> None:
    """Refuse what is too large, has several pages, or is only the preview in a camera's raw file."""
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{source}: {image.width}x{image.height} pixels; at most {max_pixels} are read: cut it into parts"
        )
    frames = getattr(image, "n_frames", 1)
    if name == "JPEG" and frames > 1:  # the first is the picture (CIPA DC-007), what follows are previews and depths
        notes.append("several pictures in the file, the first taken")
    elif frames > 1:
        raise UserError(f"{source}: {frames} frames or pages; expected one image: save each as its own file")
    if image.mode == "P" and name == "PNG" and image.palette is None:
        raise UserError(f"{source}: not a readable PNG image: colours by a palette that is not there")
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) in _FAX:
        raise UserError(f"{source}: compressed as a fax (CCITT), where damage cannot be told; save it as PNG")
    if _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE, 0) & 1:
        raise UserError(f"{source}: its first page is a preview, as in a camera's raw file; develop it to PNG or JPEG")


def _require_one_map(file: BinaryIO, image: Image.Image, deep: bool, source: str) -> None:
    """Refuse several PGM or PPM images one behind the other, of which Pillow sees the first."""
    tiles: Any = getattr(image, "tile", [])
    file.seek(tiles[0][2] + image.width * image.height * len(image.getbands()) * (2 if deep else 1))
    if image_format(file.read(2)) is not None:
        raise UserError(f"{source}: several images one behind the other; expected one: save each as its own file")


def _is_deep(image: Image.Image, name: str, source: str, notes: list[str]) -> bool:
    """Whether a PNG, PGM or PPM that is open has 16 bits per channel, of which Pillow keeps 8 where it has colour.

    Raises:
        UserError: more than 8 bits in another format.
    """
    if name == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_BITS_PER_SAMPLE, (1,)))
        if bits > 8 or image.mode.startswith(("I", "F")):
            raise UserError(
                f"{source}: pixels of mode {image.mode} in {bits} bits (more than 8 bits); expected 8 bits per channel:"
                " convert it first"
            )
        if _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
            raise UserError(f"{source}: signed pixels, -128 to 127; expected 0 to 255: convert it first")
        if tags.get(_SAMPLES_PER_PIXEL, 1) > len(image.getbands()):
            notes.append("further bands dropped")
        return False
    tiles: Any = getattr(image, "tile", [])
    if not tiles:
        return image.mode.startswith("I")
    decoder, _, _, how = tiles[0]
    # Of a PPM whose largest value is not 255 Pillow's decoder gets that value, and scales by it.
    return image.mode.startswith("I") or ";16" in str(how) or (decoder == "ppm" and how[-1] > 255)


def _upright(image: Image.Image, orientation: int | None, notes: list[str]) -> Image.Image:
    """Turn the loaded image as its EXIF orientation asks."""
    if orientation is None:
        notes.append("an EXIF orientation that does not exist, taken as stored")
    elif orientation != 1:
        notes.append("turned by its EXIF tag")
        if image.format != "TIFF":  # which Pillow has turned
            return image.transpose(EXIF_TURNS[orientation])
    elif len(image.info.get("exif", b"")) > len(b"Exif\0\0II*\0\0\0\0\0") and not image.getexif():
        notes.append("unreadable EXIF data, taken as stored")
    return image


def _to_rgb(image: Image.Image, deep: bool, notes: list[str], source: str) -> UInt8:
    if deep:
        notes.append("16 bits per channel brought to 8")
        if image.mode.startswith("I"):
            return _from_16_bits(image, source)
        # Pillow kept the upper 8 of the 16 bits.
        highest = max(high for _, high in np.reshape(image.getextrema(), (-1, 2))[:3])
        _require_full_range(int(highest) << 8 | 0xFF, source)
    mode = image.mode
    if mode in ("RGBA", "RGBa", "LA", "PA", "La") or "transparency" in image.info:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest != 255:
            notes.append("transparency dropped, colours below it taken")
    image.info.pop("transparency", None)
    if mode == "CMYK":
        notes.append("CMYK converted without its colour profile")
    if mode == "RGBa":  # alpha already multiplied in
        image = image.convert("RGBA")
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))


def _from_16_bits(image: Image.Image, source: str) -> UInt8:
    """Grey of the full range 0..65535: 257 times 0..255 (PNG specification, 13.12; Pillow scales a PGM to it)."""
    values = np.asarray(image).astype(np.int64)
    _require_full_range(int(values.max()), source)
    grey = np.clip((values + 128) // 257, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _require_full_range(highest: int, source: str) -> None:
    """Refuse a 16-bit picture whose values may be fewer bits, unscaled: nearly black if taken as they are."""
    if 0 < highest < _LEAST_MAXIMUM:
        raise UserError(
            f"{source}: 16 bits per channel, but no value above {highest} of 65535: fewer bits stored unscaled, or too "
            "dark to tell; scale it to the full range, or to 8 bits, first"
        )


class _Silence:
    """No warnings while any thread is inside (`warnings.catch_warnings` holds for one thread at a time)."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


SILENCE = _Silence()
