"""Frames come out as they went in, turned as the file asks; what is damaged, cut off or no video is said in a line."""

import gc
import sys

import av
import numpy as np
import pytest

from serving.contract.errors import UnavailableError, UserError
from serving.images.video import Video
from tests.serving.videos import turn, write_video


@pytest.fixture
def clip(tmp_path, photo):
    return write_video(tmp_path / "clip.mkv", [photo(32, 48, seed) for seed in range(12)])


def frames_of(path, **options):
    with Video(str(path), **options) as video:
        return [(frame.number, frame.time_s, *frame.take()) for frame in video.frames()]


def test_frames_come_out_as_they_went_in(clip, photo):
    frames = frames_of(clip)
    assert [number for number, *_ in frames] == list(range(12))
    assert [time for _, time, *_ in frames] == pytest.approx([number / 10 for number in range(12)])
    for number, _, pixels, notes in frames:
        np.testing.assert_array_equal(pixels, photo(32, 48, number))
        assert notes == () and pixels.flags["C_CONTIGUOUS"]
    with Video(str(clip)) as video:
        assert (video.height, video.width, video.expected_frames) == (32, 48, 12)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
        ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
        ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
        ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),  # a telephone held upright: a quarter turn clockwise
        ((0, -1, 1, 0), np.rot90),
        ((0, 1, 1, 0), lambda pixels: pixels.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_a_display_matrix_is_followed_and_said_once(tmp_path, photo, matrix, expected):
    path = write_video(
        tmp_path / "a.mp4", [photo(32, 48, seed) for seed in range(3)], codec="mpeg4", pixel_format="yuv420p"
    )
    stored = [pixels for _, _, pixels, _ in frames_of(path)]
    turn(path, *matrix)
    turned = frames_of(path)
    assert [notes for *_, notes in turned] == [("turned by its display matrix",), (), ()]
    for (_, _, pixels, _), before in zip(turned, stored, strict=True):
        np.testing.assert_array_equal(pixels, expected(before))


def test_a_frame_that_was_taken_is_gone_without_the_garbage_collector(clip):
    """Frames are large, and the collector counts objects, not bytes."""
    gc.collect()
    gc.disable()
    try:
        frames_of(clip)
        assert not [each for each in gc.get_objects() if type(each) is av.VideoFrame]
    finally:
        gc.enable()


def test_other_matrices_are_taken_as_stored_and_said(tmp_path, photo):
    path = write_video(tmp_path / "a.mp4", [photo(32, 48)], codec="mpeg4", pixel_format="yuv420p")
    turn(path, 2, 0, 0, 1)
    ((_, _, pixels, notes),) = frames_of(path)
    assert pixels.shape == (32, 48, 3) and notes == ("a display matrix that is no quarter turn, taken as stored",)


def test_a_video_that_is_cut_off_gives_what_is_there_and_says_so(clip):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    read = []
    with (
        Video(str(clip)) as video,
        pytest.raises(UserError, match=r"clip\.mkv: cut off: 0\.\d s of the 1\.2 s that"),
    ):
        read.extend(frame.number for frame in video.frames())
    assert 3 <= len(read) < 8


@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("mpeg4", "yuv420p"), ("libx264", "yuv420p"), ("mjpeg", "yuvj420p")]
)
def test_what_follows_a_damaged_place_is_left_out_up_to_the_next_key_frame(tmp_path, photo, codec, pixel_format):
    frames = [np.roll(photo(48, 64), shift, axis=1) for shift in range(36)]
    path = write_video(tmp_path / "a.mp4", frames, codec=codec, pixel_format=pixel_format, options={"g": "12"})
    whole = {time: pixels for _, time, pixels, _ in frames_of(path)}
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    path.write_bytes(content)
    read = []
    with Video(str(path)) as video, pytest.raises(UserError) as caught:
        read.extend((frame.time_s, frame.take()[0]) for frame in video.frames())
    assert "a.mp4: damaged at " in str(caught.value) and "are left out" in str(caught.value)
    assert 12 <= len(read) < 36 and max(time for time, _ in read) == pytest.approx(3.5)
    for time, pixels in read:  # none of them is made of what was damaged
        np.testing.assert_array_equal(pixels, whole[time])


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a readable video"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "not a readable video"),
        (b"no video at all", "not a readable video"),
        (PLAYLIST, "not a readable video"),
        (b"ffconcat version 1.0\nfile '/etc/hosts'\n", "not a readable video"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, content, expected):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UserError) as caught:
        frames_of(tmp_path / "a.mp4")
    assert str(caught.value).startswith(f"{tmp_path / 'a.mp4'}: {expected}") and "\n" not in str(caught.value)


def test_frames_beyond_the_limit_of_pixels_are_refused(clip):
    with pytest.raises(UserError, match=r"frames of 48x32 pixels; at most 1000 are read"):
        frames_of(clip, max_pixels=1000)


def test_without_pyav_one_line_names_the_extra(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UnavailableError, match=r"clip\.mkv: a video needs PyAV; .*pip install 'contrail-.*\[video\]'$"):
        frames_of(clip)
