"""Video files, frame by frame (extra `video`: PyAV, FFmpeg's libraries in a wheel)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.images.decoding import MAX_PIXELS
from serving.images.image_io import open_file

UInt8 = NDArray[np.uint8]

# FFmpeg's names of the containers that are read. Lists of addresses (HLS, DASH, concat) are not among them: they would
# open other files and the network.
_CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg"
# A file is cut off where its header says so much more than there is: headers are not exact.
_MISSING_END_S, _MISSING_SHARE = 0.5, 0.1
_FULL = 1 << 16  # one, in the fixed-point numbers of a display matrix

# What the signs of a display matrix's a, b, c, d ask for: pixel (x, y) goes to (a x + c y, b x + d y), y downwards
# (ISO/IEC 14496-12, 8.3.2; FFmpeg's libavutil/display.h).
_TURNS: dict[tuple[int, int, int, int], Any] = {
    (1, 0, 0, 1): lambda pixels: pixels,
    (-1, 0, 0, 1): lambda pixels: pixels[:, ::-1],
    (1, 0, 0, -1): lambda pixels: pixels[::-1],
    (-1, 0, 0, -1): lambda pixels: pixels[::-1, ::-1],
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda pixels: pixels.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
}


class VideoFrame:
    """One frame, which is converted to pixels by whoever needs them.

    Attributes:
        number: in the order of the video, from 0.
        time_s: when it is shown, in seconds; None where the file does not say.
        decode_ms: what decoding it took, in milliseconds.
    """

    def __init__(self, number: int, picture: Any, decode_ms: float) -> None:
        self.number, self.time_s, self.decode_ms = number, picture.time, decode_ms
        self._picture = picture

    def take(self) -> tuple[UInt8, tuple[str, ...]]:
        """(`[H,W,3]` uint8 RGB, notes of what was done with it). Only once: the frame gives up what it holds."""
        picture, self._picture = self._picture, None
        pixels: UInt8 = picture.to_ndarray(format="rgb24")
        notes: tuple[str, ...] = ()
        signs = _signs(picture)
        if signs is None:
            notes = ("a display matrix that is no quarter turn, taken as stored",)
        elif signs != (1, 0, 0, 1):
            notes = ("turned by its display matrix",)
        turned = pixels if signs is None else _TURNS[signs](pixels)
        return np.ascontiguousarray(turned), notes if self.number == 0 else ()


class Video:
    """An open video file. Use as a context manager, in one thread.

    Args:
        path: the file.
        max_pixels: larger frames are refused before they are decoded.

    Attributes:
        height, width: in pixels, as stored.
        expected_frames: that the header speaks of; 0 where it does not say.

    Raises:
        UnavailableError: PyAV is not installed.
        UserError: missing, unreadable, no video, or too large.
    """

    def __init__(self, path: str, *, max_pixels: int = MAX_PIXELS) -> None:
        from serving.extras import require_extra  # only now: images alone do not need it

        try:
            require_extra("video", ("av",))
        except UserError as error:
            raise type(error)(f"{path}: a video needs PyAV; {error}") from error
        import av

        self._path, self._max_pixels = path, max_pixels
        self._errors = (av.FFmpegError, OSError, ValueError)
        with ExitStack() as stack:
            file = stack.enter_context(open_file(path))
            try:
                self._container = stack.enter_context(_open(file))
            except self._errors as error:
                raise UserError(f"{path}: not a readable video: {_reason(error)}") from error
            if not self._container.streams.video:
                raise UserError(f"{path}: no video in it, only {_kinds(self._container)}")
            self._stream = self._container.streams.video[0]
            codec = self._stream.codec_context
            if codec is None:
                raise UserError(f"{path}: not a readable video: a codec that is not known")
            codec.thread_count = 1  # the other threads have the engine
            codec.options = {"err_detect": "explode"}  # else some decoders make up what is damaged, and say nothing
            self.height, self.width = codec.height, codec.width
            self._require_size(self.height, self.width)
            self._duration_s = (self._container.duration or 0) / av.time_base
            rate = float(self._stream.average_rate or 0)
            self.expected_frames = self._stream.frames or round(self._duration_s * rate)
            self._tolerance_s = max(min(_MISSING_END_S, _MISSING_SHARE * self._duration_s), 1.5 / rate if rate else 0)
            self._stack = stack.pop_all()

    def frames(self) -> Iterator[VideoFrame]:
        """All frames in the order they are shown, as they are asked for.

        What cannot be decoded is left out, with what follows up to the next key frame, which is made of it.

        Raises:
            UserError: at the end, where frames were left out or the file is cut off.
        """
        number, lost, broken, first_lost, start = 0, 0, False, "", time.perf_counter_ns()
        end = self._start_s()
        for packet in self._packets():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is not self._stream:
                continue
            pictures: list[Any] = []
            try:
                pictures = packet.decode()
                damaged = packet.is_corrupt
            except self._errors:
                damaged = True
            if damaged and not pictures:
                broken, lost = True, lost + 1
                first_lost = first_lost or _at(packet.pts, packet.time_base)
            for picture in pictures:
                broken = (broken and not picture.key_frame) or picture.is_corrupt
                if broken:
                    lost, first_lost = lost + 1, first_lost or _at(picture.pts, picture.time_base)
                    continue
                self._require_size(picture.height, picture.width)
                yield VideoFrame(number, picture, (time.perf_counter_ns() - start) / 1e6)
                number, start = number + 1, time.perf_counter_ns()
        self._judge(number, lost, first_lost, end - self._start_s())

    def _judge(self, number: int, lost: int, first_lost: str, seconds: float) -> None:
        """Raise UserError where a video is not whole."""
        if lost:
            raise UserError(
                f"{self._path}: damaged{first_lost}: {lost} frames could not be decoded and are left out, "
                f"the other {number} were read"
            )
        if seconds < self._duration_s - self._tolerance_s:
            raise UserError(
                f"{self._path}: cut off: {seconds:.1f} s of the {self._duration_s:.1f} s that its header speaks of, "
                f"{number} frames were read"
            )
        if number == 0:
            raise UserError(f"{self._path}: not a readable video: no frame in it")

    def _packets(self) -> Iterator[Any]:
        """Of all streams: sound may go on where the pictures end."""
        try:
            yield from self._container.demux()
        except self._errors as error:
            raise UserError(f"{self._path}: not a readable video: {_reason(error)}") from error

    def _start_s(self) -> float:
        return (self._container.start_time or 0) / 1e6

    def _require_size(self, height: int, width: int) -> None:
        if height * width == 0:
            raise UserError(f"{self._path}: not a readable video: frames of {width}x{height} pixels")
        if height * width > self._max_pixels:
            raise UserError(f"{self._path}: frames of {width}x{height} pixels; at most {self._max_pixels} are read")

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open(file: BinaryIO) -> Any:
    """PyAV's container."""
    import av

    return av.open(file, options={"format_whitelist": _CONTAINERS, "protocol_whitelist": ""})


def _signs(picture: Any) -> tuple[int, int, int, int] | None:
    """Of a frame's display matrix; None where it asks for more than quarter turns and flips."""
    from av.sidedata.sidedata import SideDataContainer

    # `picture.side_data` is this too, and keeps it: the two hold each other, and hundreds of frames would wait for
    # Python's garbage collector.
    side_data: Any = SideDataContainer(picture)  # type: ignore[call-arg]  # PyAV's stubs do not show it
    matrices = [each for each in side_data if each.type.name == "DISPLAYMATRIX"]
    if not matrices:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrices[0], np.int32)[:5].tolist()
    signs = tuple(round(each / _FULL) for each in (a, b, c, d))
    exact = all(abs(each) in (0, _FULL) for each in (a, b, c, d))
    return signs if exact and signs in _TURNS else None


def _at(pts: int | None, time_base: Any) -> str:
    return "" if pts is None else f" at {float(pts * time_base):.2f} s"


def _kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
