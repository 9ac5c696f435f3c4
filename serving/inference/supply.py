"""What a run has to do, one image after the other: a video as its frames, which are decoded as they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.images.decoding import MAX_PIXELS, DecodedImage, decode_image, image_size
from serving.images.image_io import open_file
from serving.images.video import Video, VideoFrame
from serving.inference.marks import HEAD_BYTES, mark_of
from serving.inference.planning import FRAME_DIGITS, Job

UInt8 = NDArray[np.uint8]


class Frame:
    """A frame of a video, or why there is none.

    Attributes:
        number: from 0; None for what is wrong with the video as a whole.
        time_s: when it is shown; None where the file does not say.
    """

    def __init__(self, content: VideoFrame | UserError) -> None:
        frame = content if isinstance(content, VideoFrame) else None
        self.number = None if frame is None else frame.number
        self.time_s = None if frame is None else frame.time_s
        self._content = content

    def read(self) -> tuple[DecodedImage, float]:
        """(the pixels, what they took to decode in milliseconds). Raises UserError for what is wrong with the video."""
        if isinstance(self._content, UserError):
            raise self._content
        start = time.perf_counter_ns()
        pixels, notes = self._content.take()
        return DecodedImage(pixels, notes), self._content.decode_ms + (time.perf_counter_ns() - start) / 1e6


class Supply:
    """Iterate over it once, in one thread.

    Attributes:
        rest: images and videos that were not begun, or not read to their end.
        total: images, and frames as far as they were read.
        expected: likewise, but all the frames that the headers of videos speak of.
    """

    def __init__(self, jobs: Sequence[Job], max_pixels: int = MAX_PIXELS) -> None:
        self._jobs, self._max_pixels = jobs, max_pixels
        videos = [job for job in jobs if job.image.video]
        self.holds_videos = bool(videos)
        self.rest = len(jobs)
        self.total = len(jobs) - len(videos)
        self._frames_expected = sum(_expected_frames(job, max_pixels) for job in videos)

    @property
    def expected(self) -> int:
        """See the class."""
        return max(self.total, len(self._jobs) + self._frames_expected if self.holds_videos else 0)

    def __iter__(self) -> Iterator[Job]:
        for job in self._jobs:
            if job.image.video:
                for each in self._frames(job):
                    self.total += 1
                    yield each
                self.rest -= 1
            else:
                self.rest -= 1
                yield job

    def _frames(self, job: Job) -> Iterator[Job]:
        try:
            with Video(job.image.path, max_pixels=self._max_pixels) as video:
                for frame in video.frames():
                    yield Job(job.image, f"{job.stem}.{frame.number:0{FRAME_DIGITS}}", Frame(frame))
        except UserError as error:
            yield Job(job.image, job.stem, Frame(error))


def read_unmarked(path: str, max_pixels: int = MAX_PIXELS) -> DecodedImage | None:
    """Read an image; None where it is a result of `infer`.

    Raises:
        UserError: see `image_io.read_image`.
    """
    with open_file(path) as file:
        if mark_of(file.read(HEAD_BYTES)) is not None:
            return None
        file.seek(0)
        return decode_image(file, path, max_pixels=max_pixels)


def sample(job: Job, max_pixels: int = MAX_PIXELS) -> UInt8 | None:
    """The image, or the first frame of the video; None where it is a result of `infer` or has no frame.

    Raises:
        UserError: it cannot be read.
    """
    if not job.image.video:
        decoded = read_unmarked(job.image.path, max_pixels)
        return None if decoded is None else decoded.pixels
    with Video(job.image.path, max_pixels=max_pixels) as video:
        return next((frame.take()[0] for frame in video.frames()), None)


def size_of(job: Job) -> tuple[int, int]:
    """Height and width from the header. Raises UserError where there is none."""
    if job.image.video:
        with Video(job.image.path) as video:
            return video.height, video.width
    with open_file(job.image.path) as file:
        return image_size(file, job.image.path)


def _expected_frames(job: Job, max_pixels: int) -> int:
    try:
        with Video(job.image.path, max_pixels=max_pixels) as video:
            return video.expected_frames
    except UserError:
        return 0
