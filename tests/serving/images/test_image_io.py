"""Every kind of image file gives RGB pixels or one clear line, and masks come back as they were written."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.contract.errors import UserError
from serving.images.image_io import read_image, write_image, write_mask


@pytest.fixture
def pixels(photo):
    return photo(13, 17)


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_lossless_formats_come_back_exactly(tmp_path, pixels, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    read = read_image(saved(tmp_path / name, Image.fromarray(pixels), **options))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_the_content_counts_and_not_the_name(tmp_path, pixels):
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(pixels).save(path, format="PNG")
    np.testing.assert_array_equal(read_image(path), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, name):
    blocks = np.arange(6, dtype=np.uint8).reshape(2, 3).repeat(8, 0).repeat(8, 1) * 40
    upright = Image.fromarray(np.repeat(blocks[:, :, None], 3, axis=2))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a camera held that way would record
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    read = read_image(saved(tmp_path / name, stored, exif=exif))
    assert read.shape == (16, 24, 3)
    np.testing.assert_allclose(read.astype(int), np.asarray(upright).astype(int), atol=3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr"])
def test_other_colour_modes_become_what_pillow_shows(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    path = saved(tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png"), image)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)


def test_alpha_is_dropped_and_a_transparent_palette_reads_without_a_warning(tmp_path, pixels):
    image = Image.fromarray(pixels).convert("RGBA")
    image.putalpha(0)
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", image)), pixels)
    palette = Image.fromarray(pixels).quantize(16)
    path = saved(tmp_path / "b.png", palette, transparency=bytes(range(16)))
    np.testing.assert_array_equal(read_image(path), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("name", ["deep.png", "deep.pgm"])
def test_16_bit_grey_is_scaled_from_its_full_range(tmp_path, name):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    read = read_image(saved(tmp_path / name, Image.fromarray(values)))
    assert read.shape == (1, 6, 3)
    assert read[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


@pytest.mark.parametrize("array", [np.ones((4, 4), np.uint16), np.ones((4, 4), np.float32), np.ones((4, 4), np.int32)])
def test_deep_tiffs_are_refused(tmp_path, array):
    path = saved(tmp_path / "deep.tif", Image.fromarray(array))
    with pytest.raises(UserError, match=r"deep\.tif: pixels of mode .*more than 8 bits"):
        read_image(path)


def test_pages_and_frames_are_refused(tmp_path, pixels):
    image = Image.fromarray(pixels)
    for name in ("pages.tif", "moving.webp", "moving.png"):
        path = tmp_path / name
        image.save(path, save_all=True, append_images=[image.rotate(180)])
        with pytest.raises(UserError, match="2 frames or pages"):
            read_image(path)


def test_missing_folder_empty_and_foreign_files_are_refused_in_one_line(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image at all")
    (tmp_path / "vector.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "sound.png").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    for name, reason in {
        "missing.png": "No such file",
        ".": "Is a directory",
        "empty.png": "an empty file",
        "text.png": "starts with b'not an i'",
        "vector.png": "expected JPEG, PNG",
        "sound.png": "expected JPEG, PNG",
        "nul\0byte.png": "cannot be read",
    }.items():
        with pytest.raises(UserError) as caught:
            read_image(tmp_path / name)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(UserError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match="100x100 pixels; at most 9999"):
        read_image(tmp_path / "large.png", max_pixels=9999)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), image_format=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"]))
def test_damaged_files_never_raise_anything_but_a_user_error(tmp_path, data, image_format):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)).save(buffer, format=image_format)
    content = bytearray(buffer.getvalue())
    for position in data.draw(st.lists(st.integers(4, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(4, len(content)))]
    path = tmp_path / "damaged"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_a_mask_keeps_its_indices_and_shows_its_palette(tmp_path):
    mask = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
    palette = ((1, 2, 3), (40, 50, 60), (255, 0, 0))
    path = tmp_path / "deep" / "folder" / "mask.png"
    write_mask(path, mask, palette)
    with Image.open(path) as stored:
        assert stored.mode == "P" and stored.format == "PNG"
        np.testing.assert_array_equal(np.asarray(stored), mask)
        shown = np.asarray(stored.convert("RGB"))
    assert shown[0].tolist() == [list(color) for color in palette]
    assert shown[1, 0].tolist() == [0, 0, 0]


def test_a_mask_of_256_classes_is_kept(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "mask.png", mask, [(i, 0, 255 - i) for i in range(256)])
    with Image.open(tmp_path / "mask.png") as stored:
        np.testing.assert_array_equal(np.asarray(stored), mask)


def test_images_are_written_by_their_ending_and_a_blocked_folder_is_one_line(tmp_path, pixels):
    write_image(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels)
    write_image(tmp_path / "a.jpg", pixels)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.format == "JPEG"
    with pytest.raises(UserError, match="cannot be written"):
        write_image(tmp_path / "a.png" / "b.png", pixels)


def test_what_no_jpeg_holds_is_one_line(tmp_path):
    wide = np.zeros((1, 65501, 3), np.uint8)
    with pytest.raises(UserError, match=r"wide\.jpg: cannot be written: 65501x1 pixels, a JPEG has at most 65500"):
        write_image(tmp_path / "wide.jpg", wide)
    assert list(tmp_path.iterdir()) == []
    write_image(tmp_path / "wide.png", wide)
    write_image(tmp_path / "wide.jpg", wide[:, 1:])
