"""Which picture a file holds, told by its first bytes."""

from __future__ import annotations

HEAD_BYTES = 16

# First bytes -> (Pillow's name of the format, the name of its plugin). Nothing else is ever decoded: some of Pillow's
# other decoders start other programs.
FORMATS = {
    b"\xff\xd8\xff": ("JPEG", "Jpeg"),
    b"\x89PNG": ("PNG", "Png"),
    b"BM": ("BMP", "Bmp"),
    b"RIFF": ("WEBP", "WebP"),
    b"II*\0": ("TIFF", "Tiff"),
    b"MM\0*": ("TIFF", "Tiff"),
    b"P5": ("PPM", "Ppm"),
    b"P6": ("PPM", "Ppm"),
}
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

# Videos need PyAV. The first bytes of some of them (MPEG streams) are no sure sign: these endings are.
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts"})
VIDEO_SUFFIXES |= {".wmv", ".flv", ".ogv", ".3gp"}
VIDEO = "video"

# Pictures that are not read, by their first bytes and by the ending of their names.
_OTHERS = {
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL",
    b"8BPS": "Photoshop",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"II+\0": "BigTIFF",
    b"MM\0+": "BigTIFF",
    b"IIRO": "camera raw",
    b"IIU\0": "camera raw",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"II\xbc\x01": "JPEG XR",
    b"P1\n": "portable bitmap",
    b"P2\n": "plain-text portable graymap",
    b"P3\n": "plain-text portable pixmap",
    b"P4\n": "portable bitmap",
    b"Pf\n": "portable floatmap",
    b"PF\n": "portable floatmap",
    b"%PDF": "PDF",
    b"\x1a\x45\xdf\xa3": VIDEO,
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC"}
_BRANDS |= {b"crx ": "camera raw"}
_RAW_SUFFIXES = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw"}
)
_RAW_SUFFIXES |= {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".srw", ".x3f"}


def image_format(head: bytes) -> tuple[str, str] | None:
    """(Pillow's name of the format, its plugin) of a file that starts so; None for what is not read."""
    for start, found in FORMATS.items():
        if head.startswith(start) and (start != b"RIFF" or head[8:12] == b"WEBP"):
            return found
    return None


def is_surely_image(head: bytes) -> bool:
    """Whether a file that starts so is read, whatever its name: two letters that words begin with are not enough."""
    if head.startswith(b"BM"):
        return head[6:10] == bytes(4)  # reserved (BITMAPFILEHEADER)
    if head.startswith((b"P5", b"P6")):
        return head[2:3].isspace() and head[3:4] in b"#0123456789"
    return image_format(head) is not None


def is_video(head: bytes, suffix: str) -> bool:
    """Whether a file is read as a video.

    Args:
        head: its first bytes.
        suffix: of its name, in small letters.
    """
    named = suffix in VIDEO_SUFFIXES and (suffix != ".ts" or head.startswith(b"G"))  # TypeScript is no MPEG stream
    return other_picture(head) == VIDEO or (named and not is_surely_image(head))


def other_picture(head: bytes, suffix: str = "") -> str | None:
    """What a picture that is not read is called; None for what is no picture.

    Args:
        head: its first bytes.
        suffix: of its name, in small letters. A camera's raw file may begin as a TIFF, with a thumbnail in it.
    """
    if suffix in _RAW_SUFFIXES:
        return "camera raw"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], VIDEO)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return VIDEO
    return next((name for start, name in _OTHERS.items() if head.startswith(start)), None)
