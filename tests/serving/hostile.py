"""A folder as nobody wants it: sound images in every form, damaged and dangerous ones, and what is no image at all.

`python -m tests.serving.hostile DIR` makes it, to look at or to try something else on.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HEIGHT, WIDTH = 24, 36
# A TIFF directory of a grey image of 4x4 but for where its strip lies, as (tag, type, count, value); and where it ends.
GREY = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 16)]
AFTER = 8 + 2 + 12 * 8 + 4


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """Blocks of colour with some noise."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3)).repeat(6, 0).repeat(6, 1)[:height, :width]
    return Image.fromarray(np.clip(blocks + generator.integers(-20, 21, blocks.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: tuple[int, int, int, int], rows: bytes, *more: bytes) -> bytes:
    """A PNG of width, height, bits and colour type, with further chunks before its data."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)) + b"".join(more)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """An RGB PNG of 16 bits."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png((values.shape[1], values.shape[0], 16, 2), rows)


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF of one directory, as it is given."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following) + data


def exif(orientation: int) -> Image.Exif:
    """EXIF data that ask for an orientation."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def sound() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Name -> (bytes, height and width of the upright image)."""
    size = (HEIGHT, WIDTH)
    image = scene(0)
    values = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(size)
    files: dict[str, tuple[bytes, tuple[int, int]]] = {
        f"plain{ending}": (encoded(image, name, **options), size)
        for ending, name, options in (
            (".jpg", "JPEG", {}),
            (".png", "PNG", {}),
            (".bmp", "BMP", {}),
            (".webp", "WEBP", {}),
            (".tif", "TIFF", {}),
            (".ppm", "PPM", {}),
            (".jpeg", "JPEG", {"progressive": True}),
            (".jfif", "JPEG", {"quality": 1}),
            (".tiff", "TIFF", {"compression": "tiff_lzw"}),
        )
    }
    for mode, ending, name in (
        ("L", ".pgm", "PPM"),
        ("1", ".png", "PNG"),
        ("P", ".png", "PNG"),
        ("LA", ".png", "PNG"),
        ("RGBA", ".png", "PNG"),
        ("RGBA", ".webp", "WEBP"),
        ("L", ".jpg", "JPEG"),
        ("CMYK", ".jpg", "JPEG"),
        ("CMYK", ".tif", "TIFF"),
        ("L", ".bmp", "BMP"),
        ("P", ".bmp", "BMP"),
    ):
        files[f"mode {mode}{ending}"] = (encoded(image.convert(mode), name), size)
    for orientation in range(1, 9):
        upright = size if orientation < 5 else size[::-1]
        files[f"exif {orientation}.jpg"] = (encoded(image, "JPEG", exif=exif(orientation)), upright)
    files["exif 6.png"] = (encoded(image, "PNG", exif=exif(6)), size[::-1])
    files["exif 8.tif"] = (encoded(image, "TIFF", exif=exif(8)), size[::-1])
    files["exif 99.jpg"] = (encoded(image, "JPEG", exif=exif(99)), size)
    files["exif damaged.jpg"] = (encoded(image, "JPEG", exif=b"Exif\0\0" + b"\xff" * 30), size)
    files["two pictures.jpg"] = (encoded(image, "MPO", save_all=True, append_images=[scene(1)]), size)
    files["deep grey.png"] = (encoded(Image.fromarray(values.astype(np.uint16)), "PNG"), size)
    files["deep colour.png"] = (deep_png(values.astype(np.uint16)[..., None].repeat(3, 2)), size)
    files["ring of pages.tif"] = (tiff([*GREY, (273, 4, 1, AFTER)], bytes(16), following=8), (4, 4))
    files["profile.png"] = (encoded(image, "PNG", icc_profile=b"not really a profile"), size)
    for name, height, width in (("dot", 1, 1), ("row", 1, 300), ("column", 300, 1), ("odd", 31, 33), ("wide", 7, 640)):
        files[f"{name}.png"] = (encoded(scene(2, height, width), "PNG"), (height, width))
    names = [
        *("really a png.jpg", "no ending", "backup.jpg~", "UPPER.PNG", "dots.in.name.png", "-dash.png"),
        *(
            "'quotes\".png",
            "$(reboot).png",
            "semi;colon&.png",
            "per%cent%s.png",
            "new\nline.png",
            "tab\t.png",
            "\x1b[31m.png",
        ),
        *(
            "日本語.png",
            "😀.png",
            "\u202eright to left.png",
            "non\u00a0breaking\u202f.png",
            "caf\udce9.png",
            "\udcff\udcfe.png",
        ),
        *(
            unicodedata.normalize("NFC", "é.png"),
            unicodedata.normalize("NFD", "é.png"),
            "n" * 251 + ".png",
            "~.png",
            "#.png",
        ),
        *("deep/" * 20 + "bottom.png", "[brackets]/a*b?.png", "x.png folder.png/inside.png", "con.png", "a b/c d.png"),
    ]
    for seed, name in enumerate(names):
        files[name] = (encoded(scene(seed), "PNG"), size)
    return files


def unsound() -> dict[str, bytes]:
    """Name -> bytes of what claims to be an image and cannot be taken for one."""
    image = scene(3, 120, 160)
    whole = {name: encoded(image, name) for name in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")}
    files = {f"cut.{name.lower()}.png": content[: len(content) // 2] for name, content in whole.items()}
    files |= {f"beginning.{name.lower()}.jpg": content[:40] for name, content in whole.items()}
    text = PngInfo()
    text.add_text("bomb", "0" * 200_000_000, zip=True)
    wrong = bytearray(whole["PNG"])
    wrong[len(wrong) // 2] ^= 0xFF
    files |= {
        "empty.jpg": b"",
        "text.png": b"not an image at all",
        "zeros.jpg": bytes(5000),
        "pixel bomb.png": png((60000, 60000, 8, 2), b"\0" * 100_000),
        "text bomb.png": encoded(scene(4), "PNG", pnginfo=text),
        "wrong sum.png": bytes(wrong),
        "claims more.png": png((500, 500, 8, 2), b"\0" * 100),
        "no colours.png": png((4, 4, 8, 3), b"\0\1\2\3\4" * 4),
        "strange depth.png": png((4, 4, 7, 2), b"\0" * 60),
        "nothing.png": png((0, 0, 8, 2), b""),
        "huge.jpg": whole["JPEG"].replace(struct.pack(">HH", 120, 160), struct.pack(">HH", 65500, 65500), 1),
        "huge.ppm": b"P6\n999999 999999\n255\n",
        "words.ppm": b"P6\nmany many\n255\n",
        "huge.bmp": whole["BMP"][:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + whole["BMP"][26:],
        "pages.tif": encoded(scene(5), "TIFF", save_all=True, append_images=[scene(6)]),
        "many tags.tif": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(100),
        "far away.tif": b"II*\0" + struct.pack("<I", 2**32 - 1),
        "raw preview.tif": tiff([*GREY, (254, 4, 1, 1), (273, 4, 1, AFTER + 12)], bytes(16)),
        "deep.tif": encoded(Image.fromarray(np.ones((4, 4), np.uint16)), "TIFF"),
        "floats.tif": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        "twelve bits.png": encoded(Image.fromarray(np.full((4, 4), 4095, np.uint16)), "PNG"),
        "moving.png": encoded(scene(7), "PNG", save_all=True, append_images=[scene(8)]),
        "moving.webp": encoded(scene(7), "WEBP", save_all=True, append_images=[scene(8)]),
        "really a gif.png": encoded(scene(9).quantize(8), "GIF"),
        "really a pdf.jpg": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "really postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%stderr) (w) file\n",
        "really a sound.webp": b"RIFF\x24\0\0\0WAVEfmt ",
        "really a phone's.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "really a zip.png": b"PK\x03\x04" + bytes(30),
    }
    return files


def make(root: Path) -> tuple[dict[str, tuple[int, int]], list[str], list[str]]:
    """Fill a folder.

    Returns:
        The sound images with height and width, the unsound ones, and what is to be left out; paths below the folder.
    """
    good: dict[str, tuple[int, int]] = {}
    for name, (content, size) in sound().items():
        _write(root / name, content)
        good[name] = size
    bad = unsound()
    for name, content in bad.items():
        _write(root / name, content)
    (root / "link.png").symlink_to("plain.png")
    (root / "second link.png").symlink_to("plain.png")
    os.link(root / "plain.png", root / "hard link.png")
    good |= dict.fromkeys(("link.png", "second link.png", "hard link.png"), (HEIGHT, WIDTH))
    left_out: dict[str, Callable[[Path], object]] = {
        "pipe.png": os.mkfifo,
        "device.png": lambda path: path.symlink_to("/dev/zero"),
        "nowhere.png": lambda path: path.symlink_to("gone.png"),
        "itself.png": lambda path: path.symlink_to(path.name),
        "deep/up": lambda path: path.symlink_to(".."),
        ".hidden.png": lambda path: path.write_bytes(encoded(scene(0), "PNG")),
        "notes.txt": lambda path: path.write_text("notes"),
        "labels.json": lambda path: path.write_text("{}"),
        "moving.gif": lambda path: path.write_bytes(bad["really a gif.png"]),
        "film.mp4": lambda path: path.write_bytes(b"\0\0\0\x18ftypisom"),
        "raw.dng": lambda path: path.write_bytes(bad["raw preview.tif"]),
        "Thumbs.db": lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0"),
    }
    for name, create in left_out.items():
        create(root / name)
    return good, list(bad), list(left_out)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
