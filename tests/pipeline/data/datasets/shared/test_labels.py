"""Label files of every mode that tools write, and ids that a dataset does not have."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.labels import (
    IGNORE_INDEX,
    ColourTable,
    LabelError,
    LabelTable,
    UnreadableError,
    read_colour_image,
    read_index_image,
)

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


class TestLabelTable:
    table = LabelTable({0: 1, 1: 0, 7: IGNORE_INDEX})

    def test_ids_are_translated(self) -> None:
        ids = np.array([[0, 1, 7]], dtype=np.uint8)
        np.testing.assert_array_equal(self.table.apply(ids, Path("a")), [[1, 0, 255]])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
    def test_unknown_ids_are_named(self, dtype: type) -> None:
        ids = np.array([[0, 2, 250, 2]], dtype=dtype)
        with pytest.raises(LabelError, match=r"a\.png: unknown label 2, 250; expected 0 to 1, 7"):
            self.table.apply(ids, Path("a.png"))

    def test_ids_beyond_the_table(self) -> None:
        with pytest.raises(LabelError, match="-1, 65535, 70000"):
            self.table.apply(np.array([[-1, 65535, 70000]], dtype=np.int32), Path("a"))

    def test_every_byte_is_known_or_refused(self) -> None:
        for value in range(256):
            ids = np.full((2, 2), value, dtype=np.uint8)
            if value in self.table.train_ids:
                assert (self.table.apply(ids, Path("a")) == self.table.train_ids[value]).all()
            else:
                with pytest.raises(LabelError, match=f"unknown label {value};"):
                    self.table.apply(ids, Path("a"))

    def test_many_unknown_ids_are_counted(self) -> None:
        ids = np.arange(100, 200, dtype=np.uint8).reshape(10, 10)
        with pytest.raises(LabelError, match="111 and 88 more"):
            self.table.apply(ids, Path("a"))

    @pytest.mark.parametrize("void", [True, False])
    def test_ids_that_are_train_ids_already_are_checked_all_the_same(self, void: bool) -> None:
        table = LabelTable({0: 0, 1: 1, 2: 2} | ({255: IGNORE_INDEX} if void else {}))
        for value in range(256):
            ids = np.array([[0, value], [2, 1]], dtype=np.uint8)
            if value in table.train_ids:
                np.testing.assert_array_equal(table.apply(ids, Path("a")), ids)
            else:
                with pytest.raises(LabelError, match=f"unknown label {value};"):
                    table.apply(ids, Path("a"))


class TestColours:
    table = ColourTable({(0, 0, 0): IGNORE_INDEX, (64, 0, 192): 0, (255, 255, 255): 1})

    def test_colours_are_translated(self) -> None:
        colours = np.array([[[64, 0, 192], [255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
        np.testing.assert_array_equal(self.table.apply(colours, Path("a")), [[0, 1, 255]])

    def test_unknown_colours_are_named(self) -> None:
        with pytest.raises(LabelError, match=r"a: unknown label colour \(64, 0, 193\)"):
            self.table.apply(np.array([[[64, 0, 193]]], dtype=np.uint8), Path("a"))

    def test_index_images_are_refused_as_colours(self, tmp_path: Path) -> None:
        Image.fromarray(IDS).save(tmp_path / "label.png")
        with pytest.raises(LabelError, match="mode L; expected the colours"):
            read_colour_image(tmp_path / "label.png")

    def test_a_palette_stands_for_its_colours(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
        image.putpalette([64, 0, 192, 255, 255, 255])
        image.save(tmp_path / "label.png")
        np.testing.assert_array_equal(read_colour_image(tmp_path / "label.png"), [[[64, 0, 192], [255, 255, 255]]])
