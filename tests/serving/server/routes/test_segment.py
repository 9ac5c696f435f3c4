"""`POST /v1/segment`: what the command would write, as an answer."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from serving.images.image_io import read_image
from serving.infer import main as infer
from serving.render import overlay
from tests.serving.conftest import PALETTE


@pytest.fixture
def street(tmp_path, photo):
    """A JPEG of odd size, turned by its EXIF tag."""
    path = tmp_path / "street.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(45, 70)).save(path, quality=95, exif=exif)
    return path


def test_the_mask_is_the_one_the_command_writes(server, engine_files, street, tmp_path, pixels):
    assert infer([str(street), "--engine", str(engine_files["onnx_fp32"]), "--output", str(tmp_path / "masks")]) == 0
    expected = (tmp_path / "masks" / "street.png").read_bytes()
    answer = server.post("/v1/segment", street.read_bytes(), Content_Type="image/jpeg")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert np.array_equal(pixels(answer.body), pixels(expected)) and pixels(answer.body).shape == (70, 45)
    with Image.open(io.BytesIO(answer.body)) as mask, Image.open(io.BytesIO(expected)) as wanted:
        assert mask.mode == "P" and mask.getpalette() == wanted.getpalette()


def test_classes_are_the_same_values_without_a_palette(server, street, predictor):
    answer = server.post("/v1/segment?output=classes", street.read_bytes())
    with Image.open(io.BytesIO(answer.body)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), predictor.predict(read_image(street)))


def test_the_overlay_is_drawn_with_the_opacity_asked_for(server, street, predictor, pixels, png):
    image = read_image(street)
    answer = server.post("/v1/segment?output=overlay&opacity=0.25", street.read_bytes())
    assert answer.headers["Content-Type"] == "image/jpeg"
    drawn = overlay(image, predictor.predict(image), PALETTE, opacity=0.25)
    assert np.array_equal(pixels(answer.body), pixels(png(drawn, "JPEG", quality=90)))


def test_areas_count_every_pixel(server, street, predictor):
    answer = server.post("/v1/segment?output=areas", street.read_bytes()).json
    mask = predictor.predict(read_image(street))
    assert (answer["height"], answer["width"], answer["engine"]) == (70, 45, "onnx_fp32")
    assert [each["pixels"] for each in answer["classes"]] == np.bincount(mask.ravel(), minlength=3).tolist()
    assert sum(each["share"] for each in answer["classes"]) == pytest.approx(1)
    assert answer["notes"] == ["turned by its EXIF tag"]


def test_an_engine_is_chosen_by_name_and_gives_its_confidence(server, png, photo, pixels):
    body = png(photo(40, 40))
    answer = server.post("/v1/segment?engine=confident&output=confidence", body)
    assert answer.status == 200 and pixels(answer.body).shape == (40, 40)
    answer = server.post("/v1/segment?output=confidence", body)
    assert answer.status == 400 and "gives no confidence" in answer.json["error"]


def test_the_answer_says_how_long_each_part_took(server, png, photo):
    timing = server.post("/v1/segment", png(photo(40, 40))).headers["Server-Timing"]
    parts = dict(part.split(";dur=") for part in timing.split(", "))
    assert set(parts) == {"receive", "decode", "queue", "engine", "encode", "total"}
    assert all(float(value) >= 0 for value in parts.values())


def test_a_client_learns_which_engines_there_are(server):
    engines = server.get("/v1/engines").json
    assert [each["name"] for each in engines] == ["onnx_fp32", "confident"]
    assert engines[0]["palette"] == [list(color) for color in PALETTE] and engines[1]["confidence"] is True


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("engine=onnx_fp23", 404, "did you mean 'onnx_fp32'?"),
        ("output=picture", 422, "output: "),
        ("outptu=areas", 422, "query: unknown 'outptu'; did you mean 'output'?"),
        ("output=overlay&opacity=2", 422, "opacity: "),
        ("opacity=nan&output=overlay", 422, "opacity: "),
        ("output=mask&output=areas", 422, "query: output is there more than once; expected it once"),
    ],
)
def test_what_is_asked_wrongly_is_refused(server, png, photo, query, status, said):
    answer = server.post(f"/v1/segment?{query}", png(photo(40, 40)))
    assert answer.status == status and said in answer.json["error"]


def test_an_overlay_that_no_jpeg_holds_is_refused(server, png):
    wide = png(np.zeros((8, 65_501, 3), np.uint8), compress_level=9)
    answer = server.post("/v1/segment?output=overlay", wide)
    assert answer.status == 422 and "at most 65500 pixels a side, got 65501x8" in answer.json["error"]
    assert server.post("/v1/segment", wide).status == 200


def test_what_is_no_image_is_refused_with_the_reason(server, png, photo):
    whole = png(photo(64, 64))
    for body, said in [
        (b"", "an empty file is no image"),
        (b"hello there", "is no image"),
        (whole[: len(whole) // 2], "not a readable PNG image"),
        (b"GIF89a" + bytes(20), "GIF is not read"),
    ]:
        answer = server.post("/v1/segment", body)
        assert answer.status == 400 and said in answer.json["error"], body[:20]


def test_a_form_is_told_how_to_send_the_image(server):
    answer = server.post("/v1/segment", b"--x\r\n", Content_Type="multipart/form-data; boundary=x")
    assert answer.status == 415 and "--data-binary" in answer.json["error"]


def test_too_many_pixels_and_too_many_bytes_are_413(server, png):
    bomb = png(np.zeros((1001, 1000, 3), np.uint8), compress_level=9)
    assert len(bomb) < 10_000
    answer = server.post("/v1/segment", bomb)
    assert answer.status == 413 and "at most 1000000" in answer.json["error"]
    # More pixels than Pillow opens, as far as its header says.
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    small = png(np.zeros((8, 8, 3), np.uint8))
    answer = server.post("/v1/segment", small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
    assert answer.status == 413 and "at most 1000000" in answer.json["error"]
    answer = server.post("/v1/segment", bytes(5 * 2**20))
    assert answer.status == 413 and "at most 4194304 bytes" in answer.json["error"]
