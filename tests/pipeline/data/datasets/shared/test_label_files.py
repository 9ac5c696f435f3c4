"""Label files of every mode that tools write, read exactly or refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.label_files import (
    label_orientation,
    read_colour_image,
    read_index_image,
    read_label_image,
)
from pipeline.data.datasets.shared.labels import LabelError, UnreadableError

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def write_grey_png(path: Path, ids: np.ndarray, bits: int) -> None:
    """A greyscale PNG of `bits` per pixel, which Pillow cannot write and PNG optimisers do."""
    height, width = ids.shape
    rows = b""
    for row in ids:
        packed = "".join(f"{value:0{bits}b}" for value in row)
        packed += "0" * (-len(packed) % 8)
        rows += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


class TestReadIndexImage:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_greyscale_of_few_bits_is_not_stretched(self, tmp_path: Path, bits: int) -> None:
        ids = np.minimum(IDS, (1 << bits) - 1).astype(np.uint8)
        write_grey_png(tmp_path / "label.png", ids, bits)
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.png"), ids)

    @pytest.mark.parametrize("bits", [4, 8])
    def test_palette_is_ignored(self, tmp_path: Path, bits: int) -> None:
        image = Image.fromarray(IDS)
        image.putpalette([value for index in range(16) for value in (255 - index, index, 7)])
        image.save(tmp_path / "label.png", bits=bits)
        with Image.open(tmp_path / "label.png") as saved:
            assert saved.mode == "P"
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.png"), IDS)

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        ids = IDS.astype(np.uint16) * 1000
        Image.fromarray(ids).save(tmp_path / "label.png")
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.png"), ids)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_colours_are_refused(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (4, 3)).save(tmp_path / "label.png")
        with pytest.raises(LabelError, match=f"mode {mode}; expected one channel"):
            read_index_image(tmp_path / "label.png")

    def test_jpeg_is_refused_whatever_its_suffix(self, tmp_path: Path) -> None:
        Image.fromarray(IDS).save(tmp_path / "label.png", format="JPEG")
        with pytest.raises(LabelError, match="lost its exact ids"):
            read_index_image(tmp_path / "label.png")

    def test_every_truncation_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "label.png"
        noise = np.random.default_rng(0).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        for length in range(0, len(content) - 24, 7):  # the last bytes are checksums
            path.write_bytes(content[:length])
            with pytest.raises(UnreadableError, match=r"label\.png"):
                read_index_image(path)

    def test_a_missing_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableError, match="No such file"):
            read_index_image(tmp_path / "none.png")
        with pytest.raises(UnreadableError, match="directory"):
            read_index_image(tmp_path)


class TestReadColourImage:
    def test_index_images_are_refused_as_colours(self, tmp_path: Path) -> None:
        Image.fromarray(IDS).save(tmp_path / "label.png")
        with pytest.raises(LabelError, match="mode L; expected the colours"):
            read_colour_image(tmp_path / "label.png")

    def test_a_palette_stands_for_its_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
        image.putpalette([64, 0, 192, 255, 255, 255])
        image.save(tmp_path / "label.png")
        np.testing.assert_array_equal(read_colour_image(tmp_path / "label.png"), [[[64, 0, 192], [255, 255, 255]]])


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


class TestWhatIsNotExact:
    picture = Image.fromarray(np.repeat(IDS[:, :, None], 3, axis=2).repeat(8, 0).repeat(8, 1))

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("label.tif", {"compression": "jpeg"}),
            ("label.png", {"format": "JPEG"}),
            ("label.webp", {"quality": 95}),
            (
                "label.webp",
                {"quality": 95, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"},
            ),  # an extended header before the pixels
            ("label.png", {"format": "MPO", "save_all": True}),
        ],
    )
    @pytest.mark.parametrize("read", [read_index_image, read_colour_image, read_label_image])
    def test_lossy_compression_is_refused(self, tmp_path: Path, name: str, options: dict[str, Any], read) -> None:
        path = saved(tmp_path / name, self.picture, **options)
        with pytest.raises(LabelError, match=r"label\.\w+: .*(lost its exact ids|does not keep exact ids)"):
            read(path)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("label.tif", {"compression": "tiff_lzw"}),
            ("label.tif", {"compression": "tiff_deflate"}),
            ("label.tif", {"compression": "packbits"}),
            ("label.webp", {"lossless": True}),
            ("label.webp", {"lossless": True, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}),
            ("label.bmp", {}),
        ],
    )
    def test_lossless_compression_is_read(self, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
        path = saved(tmp_path / name, self.picture, **options)
        np.testing.assert_array_equal(read_colour_image(path), np.asarray(self.picture))

    @pytest.mark.parametrize("name", ["label.tif", "label.gif", "label.png", "label.webp"])
    def test_several_pages_are_refused(self, tmp_path: Path, name: str) -> None:
        other = self.picture.transpose(Image.Transpose.ROTATE_180)
        path = saved(tmp_path / name, self.picture, save_all=True, append_images=[other], lossless=True)
        with pytest.raises(LabelError, match="2 pages or frames; expected one label"):
            read_label_image(path)

    @pytest.mark.parametrize("extra", [1, 2, 3])
    def test_bands_beyond_three_are_refused(self, tmp_path: Path, extra: int) -> None:
        path = tmp_path / "label.tif"
        write_tiff(path, np.zeros((4, 5, 3 + extra), np.uint8), extra_samples=[0] * extra)
        with pytest.raises(LabelError, match=f"with {3 + extra} bands"):
            read_label_image(path)

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
    def test_other_colour_models_are_refused(self, tmp_path: Path, mode: str) -> None:
        path = saved(tmp_path / "label.tif", Image.new(mode, (4, 3)))
        with pytest.raises(LabelError, match=r"mode (CMYK|YCbCr|LAB)"):
            read_label_image(path)

    def test_colours_of_16_bits_are_refused(self, tmp_path: Path) -> None:
        write_tiff(tmp_path / "label.tif", np.zeros((4, 5, 3), np.uint16))
        write_colour_png_of_16_bits(tmp_path / "label.png")
        for name in ("label.tif", "label.png"):
            with pytest.raises(LabelError, match="colours of 16 bits"):
                read_label_image(tmp_path / name)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_white_stored_as_0_is_refused(self, tmp_path: Path, dtype: type) -> None:
        write_tiff(tmp_path / "label.tif", IDS.astype(dtype), photometric=0)
        with pytest.raises(LabelError, match="MinIsWhite"):
            read_label_image(tmp_path / "label.tif")

    def test_fractions_are_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "label.tif", Image.fromarray(IDS.astype(np.float32)))
        with pytest.raises(LabelError, match="mode F"):
            read_label_image(path)

    def test_a_bomb_is_refused_before_it_is_decoded(self, tmp_path: Path) -> None:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        for side in (14000, 60000):
            header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
            content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
            (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
            with pytest.raises(LabelError, match=r"bomb\.png: .*pixels"):
                read_label_image(tmp_path / "bomb.png")


class TestNumbersThatPillowWouldStretch:
    @pytest.mark.parametrize("top", [1, 2, 11, 100, 254])
    @pytest.mark.parametrize("plain", [True, False])
    def test_a_pgm_says_its_own_largest_value(self, tmp_path: Path, top: int, plain: bool) -> None:
        ids = np.arange(12, dtype=np.uint8).reshape(3, 4) % (top + 1)
        body = " ".join(map(str, ids.ravel())).encode() if plain else ids.tobytes()
        (tmp_path / "label.pgm").write_bytes(b"P%d 4 3 %d\n" % (2 if plain else 5, top) + body)
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.pgm"), ids)

    @pytest.mark.parametrize("top", [256, 1000, 65535])
    def test_a_pgm_of_16_bits(self, tmp_path: Path, top: int) -> None:
        ids = np.array([[0, 1, 2, 200, top]], np.uint16)
        (tmp_path / "label.pgm").write_bytes(b"P5 5 1 %d\n" % top + ids.astype(">u2").tobytes())
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.pgm"), ids)

    @pytest.mark.parametrize("bits", [2, 4])
    def test_a_tiff_of_few_bits(self, tmp_path: Path, bits: int) -> None:
        ids = (np.arange(16, dtype=np.uint8) % (1 << bits)).reshape(2, 8)
        write_tiff(tmp_path / "label.tif", ids, bits=bits)
        np.testing.assert_array_equal(read_index_image(tmp_path / "label.tif"), ids)


UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a camera held that way would record


def test_large_labels_are_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", IDS.size - 1)  # above it Pillow warns, above twice that it refuses
    path = saved(tmp_path / "label.png", Image.fromarray(IDS))
    np.testing.assert_array_equal(read_label_image(path).pixels, IDS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", IDS.size // 2 - 1)
    with pytest.raises(LabelError):
        read_label_image(path)


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("name", ["label.png", "label.tif", "label.webp"])
    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_a_label_is_turned_by_its_own_tag(self, tmp_path: Path, orientation: int, name: str, mode: str) -> None:
        upright = Image.fromarray(IDS)
        stored = upright.transpose(Image.Transpose(UNDO[orientation])) if orientation > 1 else upright
        if mode == "P":
            stored.putpalette([value for index in range(256) for value in (index, 255 - index, 9)])
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / name, stored, exif=exif, lossless=True)
        label = read_label_image(path)
        assert label.orientation == label_orientation(path) == label_orientation(path, path.read_bytes()) == orientation
        np.testing.assert_array_equal(label.pixels if label.pixels.ndim == 2 else label.pixels[..., 0], IDS)

    @pytest.mark.parametrize("orientation", [0, 9, 65535])
    def test_an_orientation_that_does_not_exist_turns_nothing(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        label = read_label_image(saved(tmp_path / "label.png", Image.fromarray(IDS), exif=exif))
        assert label.orientation == 1
        np.testing.assert_array_equal(label.pixels, IDS)

    @pytest.mark.parametrize("name", ["label.png", "label.webp"])
    def test_an_orientation_stored_as_text_turns_nothing(self, tmp_path: Path, name: str) -> None:
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0" + bytes(4)
        path = saved(tmp_path / name, Image.fromarray(IDS), exif=exif, lossless=True)
        assert read_label_image(path).orientation == label_orientation(path) == 1

    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n, eXIf and nothing else", b"MATLAB 5.0 MAT-file"])
    def test_what_is_no_image_asks_for_no_turn(self, tmp_path: Path, content: bytes) -> None:
        assert label_orientation(tmp_path / "label.png", content) == 1
        assert label_orientation(tmp_path / "missing.png") == 1


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: int | None = None,
    extra_samples: list[int] | None = None,
    bits: int | None = None,
) -> None:
    """An uncompressed TIFF of one strip, such as Pillow does not write."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    depth = bits or pixels.dtype.itemsize * 8
    if bits:
        shifts = np.arange(8 // bits)[::-1] * bits
        data = (pixels.reshape(height, -1, 8 // bits) << shifts).sum(axis=2).astype(np.uint8).tobytes()
    else:
        data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags = {
        256: [width],
        257: [height],
        258: [depth] * samples,
        259: [1],
        262: [photometric if photometric is not None else 1 + (samples > 1)],
    }
    tags |= {273: [0], 277: [samples], 278: [height], 279: [len(data)]} | (
        {338: extra_samples} if extra_samples else {}
    )
    start = 8 + 2 + 12 * len(tags) + 4
    further = b""
    directory = struct.pack("<H", len(tags))
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            start_of_values = struct.pack("<I", start + len(further))
            further += packed
            packed = start_of_values
        directory += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    position = start + len(further)
    entry = struct.pack("<HHI", 273, 3, 1)
    directory = directory.replace(entry + b"\0\0\0\0", entry + struct.pack("<HH", position, 0))
    path.write_bytes(b"II*\0\x08\0\0\0" + directory + b"\0\0\0\0" + further + data)


def write_colour_png_of_16_bits(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    rows = (b"\0" + bytes(4 * 6)) * 3
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
