"""Which picture a file holds is told by its first bytes, and what is not read has a name."""

import io

import pytest
from PIL import Image

from serving.images.formats import HEAD_BYTES, SUFFIXES, image_format, is_surely_image, other_picture


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_what_pillow_writes_is_known(photo, name):
    buffer = io.BytesIO()
    Image.fromarray(photo(5, 7)).save(buffer, name)
    head = buffer.getvalue()[:HEAD_BYTES]
    assert image_format(head)[0] == name and is_surely_image(head) and other_picture(head) is None


@pytest.mark.parametrize("name", ["GIF", "AVIF", "JPEG2000", "PDF"])
def test_what_is_not_read_has_a_name(photo, name):
    buffer = io.BytesIO()
    try:
        Image.fromarray(photo(5, 7)).save(buffer, name)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow does not write {name}")
    head = buffer.getvalue()[:HEAD_BYTES]
    assert image_format(head) is None
    assert other_picture(head) == {"JPEG2000": "JPEG 2000"}.get(name, name)


def test_words_are_no_pictures():
    for text in (b"BM", b"BMW and others are cars", b"P5 house", b"P6", b"", b"RIFF....WAVEfmt "):
        assert not is_surely_image(text) and other_picture(text) is None


def test_a_raw_file_is_told_by_its_ending_whatever_it_begins_with():
    assert other_picture(b"II*\0\x08\0\0\0", ".nef") == "camera raw"
    assert all(suffix == suffix.lower() and other_picture(b"", suffix) is None for suffix in SUFFIXES)
