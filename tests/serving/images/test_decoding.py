"""What is certain of an image is taken right and said; the rest is refused."""

import io
import os
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.images.decoding import decode_image
from serving.images.image_io import open_file, read_image


def png(values, color_type, bits=16):
    """A PNG of a colour type (0 grey, 2 RGB, 4 grey and alpha, 6 RGBA) in 16 bits, which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(data, *, size, samples, bits=8, photometric=2, more=()):
    """An uncompressed TIFF of one strip with the given tags, as (tag, type, count, value) in `more`."""
    width, height = size
    tags = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (262, 3, 1, photometric), (277, 3, 1, samples)]
    tags += [(278, 4, 1, height), (279, 4, 1, len(data)), *more]
    end = 8 + 2 + 12 * (len(tags) + 2) + 4
    extra = struct.pack(f"<{samples}H", *[bits] * samples) if samples > 2 else b""
    tags.append((258, 3, samples, end if extra else bits | bits << 16))
    tags.append((273, 4, 1, end + len(extra)))
    entries = b"".join(struct.pack("<HHII", *entry) for entry in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + extra + data


def decode(content):
    return decode_image(io.BytesIO(content), "x.img")


def encoded(image, name="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_of_the_full_range_become_8_in_every_kind_of_png(color_type, channels):
    values = np.full((2, 3, channels), 65535, np.uint16)
    values[0, :, 0] = [0, 25700, 51400]
    decoded = decode(png(values, color_type))
    np.testing.assert_allclose(decoded.pixels[0, :, 0].astype(int), [0, 100, 200], atol=1)
    assert decoded.notes == ("16 bits per channel brought to 8",)


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("highest", [200, 1023, 4095, 16383])
def test_fewer_bits_in_a_16_bit_file_are_refused(color_type, channels, highest):
    """Taken as they are, 12 bits would be a nearly black picture and a wrong mask without a word."""
    values = np.linspace(0, highest, 6).astype(np.uint16).reshape(2, 3, 1).repeat(channels, 2)
    if channels in (2, 4):
        values[..., -1] = 65535
    with pytest.raises(UserError, match=r"x\.img: 16 bits per channel, but no value above \d+ of 65535.*scale it"):
        decode(png(values, color_type))


def test_a_black_16_bit_picture_is_black():
    assert not decode(png(np.zeros((2, 3), np.uint16), 0)).pixels.any()


def test_a_graymap_says_its_own_range():
    content = b"P5\n2 1\n4095\n" + struct.pack(">HH", 0, 4095)
    assert decode(content).pixels[0, :, 0].tolist() == [0, 255]
    with pytest.raises(UserError, match="no value above 4095"):
        decode(b"P5\n2 1\n65535\n" + struct.pack(">HH", 0, 4095))


def test_a_deep_pixmap_is_scaled_aloud_and_refused_where_its_values_may_be_unscaled():
    values = struct.pack(">6H", 0, 2048, 4095, 4095, 0, 100)
    decoded = decode(b"P6\n2 1\n4095\n" + values)
    assert decoded.pixels.tolist() == [[[0, 128, 255], [255, 0, 6]]]
    assert decoded.notes == ("16 bits per channel brought to 8",)
    with pytest.raises(UserError, match=r"x\.img: 16 bits per channel, but no value above \d+ of 65535"):
        decode(b"P6\n2 1\n65535\n" + values)
    assert decode(b"P6\n1 1\n100\n" + bytes([0, 50, 100])).notes == ()


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n2 1\n255\n" + b"\1" * 6,
        b"P5 2 1 255\n" + b"\1" * 2,
        b"P5 2 1 65535\n" + b"\xff" * 4,
        b"P6 1 1 900\n" + b"\3" * 6,
    ],
)
def test_several_maps_in_a_file_are_refused(content):
    assert decode(content).pixels.any()
    np.testing.assert_array_equal(decode(content + b"\n").pixels, decode(content).pixels)
    with pytest.raises(UserError, match=r"^x\.img: several images one behind the other; expected one: save each"):
        decode(content + content)


def test_deep_tiffs_are_refused_in_colour_too():
    for bits, samples, photometric in ((16, 3, 2), (16, 1, 1), (12, 1, 1)):
        content = tiff(bytes(range(1, 49)), size=(2, 2), samples=samples, bits=bits, photometric=photometric)
        with pytest.raises(UserError, match=r"x\.img: pixels of mode .* in \d+ bits \(more than 8 bits\)"):
            decode(content)


def test_signed_pixels_are_refused():
    assert decode(tiff(b"\x80\x7f", size=(2, 1), samples=1, photometric=1, more=[(339, 3, 1, 1)])).notes == ()
    with pytest.raises(UserError, match=r"^x\.img: signed pixels, -128 to 127; expected 0 to 255: convert it first$"):
        decode(tiff(b"\x80\x7f", size=(2, 1), samples=1, photometric=1, more=[(339, 3, 1, 2)]))


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_faxes_are_refused_whose_damage_cannot_be_told(photo, compression, capfd):
    content = bytearray(encoded(Image.fromarray(photo(64, 64)).convert("1"), "TIFF", compression=compression))
    content[20:40] = bytes(20)
    with pytest.raises(UserError, match=r"^x\.img: compressed as a fax \(CCITT\), where damage cannot be told"):
        decode(bytes(content))
    assert capfd.readouterr().err == ""


def test_bands_beyond_three_are_dropped_aloud_and_what_has_no_meaning_is_refused():
    data = bytes(range(10, 30))
    decoded = decode(tiff(data[:16], size=(2, 2), samples=4, more=[(338, 3, 1, 0)]))
    assert decoded.pixels[0, 0].tolist() == [10, 11, 12] and decoded.notes == ("further bands dropped",)
    assert decode(tiff(data, size=(2, 2), samples=5, more=[(338, 3, 2, 0)])).notes == ("further bands dropped",)
    with pytest.raises(UserError, match="not a readable TIFF image"):
        decode(tiff(data, size=(2, 2), samples=5, photometric=1))


@pytest.mark.parametrize("more", [[(254, 4, 1, 1)], [(50706, 1, 4, 0x00000401)]])
def test_the_preview_of_a_raw_file_is_not_taken_for_the_photograph(more):
    with pytest.raises(UserError, match="its first page is a preview, as in a camera's raw file"):
        decode(tiff(bytes(12), size=(2, 2), samples=3, more=more))


def test_transparency_is_dropped_aloud_where_there_is_any(photo):
    image = Image.fromarray(photo(8, 8)).convert("RGBA")
    assert decode(encoded(image)).notes == ()  # opaque everywhere
    image.putpixel((3, 3), (9, 8, 7, 0))
    decoded = decode(encoded(image))
    assert decoded.notes == ("transparency dropped, colours below it taken",)
    assert decoded.pixels[3, 3].tolist() == [9, 8, 7]
    palette = Image.fromarray(photo(8, 8)).quantize(4)
    assert decode(encoded(palette, transparency=0)).notes == ("transparency dropped, colours below it taken",)


def test_cmyk_is_converted_aloud(photo):
    assert decode(encoded(Image.fromarray(photo(8, 8)).convert("CMYK"), "TIFF")).notes == (
        "CMYK converted without its colour profile",
    )


def test_of_several_pictures_in_a_jpeg_the_first_is_taken_aloud(photo):
    first, second = Image.fromarray(photo(16, 24, 1)), Image.fromarray(photo(16, 24, 2))
    content = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    decoded = decode(content)
    assert decoded.notes == ("several pictures in the file, the first taken",)
    nearest = [np.abs(decoded.pixels.astype(int) - np.asarray(image)).mean() for image in (first, second)]
    assert nearest[0] < nearest[1] / 4


@pytest.mark.parametrize(
    ("exif", "note"),
    [
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", "turned by its EXIF tag"),
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", "an EXIF orientation that does not exist"),
        (b"Exif\0\0garbage and more garbage", "unreadable EXIF data, taken as stored"),
    ],
)
def test_what_exif_says_is_done_or_named(photo, exif, note):
    decoded = decode(encoded(Image.fromarray(photo(16, 24)), "JPEG", exif=exif))
    assert [each[: len(note)] for each in decoded.notes] == [note]
    assert decoded.pixels.shape == ((24, 16, 3) if "turned" in note else (16, 24, 3))


@pytest.mark.parametrize(
    ("compression", "orientation", "notes"),
    [
        (None, 1, ()),
        (None, 6, ("turned by its EXIF tag",)),
        ("tiff_lzw", 6, ("turned by its EXIF tag",)),
        (None, 9, ("an EXIF orientation that does not exist, taken as stored",)),
    ],
)
def test_the_orientation_of_a_tiff_is_named_too(photo, compression, orientation, notes):
    image = photo(16, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(Image.fromarray(image), "TIFF", exif=exif, compression=compression))
    assert decoded.notes == notes
    np.testing.assert_array_equal(decoded.pixels, np.rot90(image, 3) if orientation == 6 else image)


def test_an_orientation_in_xmp_or_written_by_imagemagick_counts_too(photo):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    image = Image.fromarray(photo(16, 24))
    assert decode(encoded(image, "JPEG", xmp=xmp)).pixels.shape == (24, 16, 3)
    assert decode(encoded(image, "JPEG", xmp=xmp)).orientation == 6
    from PIL.PngImagePlugin import PngInfo

    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif) + 6:8}\n" + (b"Exif\0\0" + exif).hex())
    assert decode(encoded(image, pnginfo=text)).pixels.shape == (24, 16, 3)
    assert decode(encoded(image, pnginfo=text)).orientation == 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_by_which_an_image_was_turned_is_told(photo, kind):
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = decode(encoded(Image.fromarray(photo(16, 24)), kind, exif=exif))
    assert (turned.orientation, turned.pixels.shape) == (8, (24, 16, 3))
    assert turned.notes == ("turned by its EXIF tag",)
    plain = decode(encoded(Image.fromarray(photo(16, 24)), kind))
    assert (plain.orientation, plain.notes) == (1, ())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_is_text_turns_nothing(photo, kind):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\x006\0\0\0" + bytes(4)
    decoded = decode(encoded(Image.fromarray(photo(16, 24)), kind, exif=exif))
    assert (decoded.orientation, decoded.pixels.shape) == (1, (16, 24, 3))
    assert decoded.notes == ("an EXIF orientation that does not exist, taken as stored",)


def test_pictures_that_are_not_read_are_named():
    with pytest.raises(UserError, match=r"^x\.img: GIF is not read; save it as PNG, JPEG or TIFF$"):
        decode(b"GIF89a" + bytes(20))
    with pytest.raises(UserError, match=r"^x\.img: not a readable TIFF image: damaged, or of a kind that is not read$"):
        decode(b"II*\0" + bytes(20))


def test_too_little_memory_is_said(monkeypatch):
    def fail(*_):
        raise MemoryError

    content = encoded(Image.new("RGB", (4, 4)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(UserError, match="there is not enough memory to decode it"):
        decode(content)


def test_pipes_and_devices_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(UserError, match="is a pipe, a socket or a device"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="Is a directory"), open_file(tmp_path):
        pass


def test_warnings_are_silent_and_as_before_after_many_threads(photo):
    content = encoded(Image.fromarray(photo(64, 64)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    before = list(warnings.filters)

    def work():
        for _ in range(50):
            decode(content)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
