"""Images of many requests wait in one bounded queue; a few threads take them, several of one size at a time."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.engines.predictor import Segmentation
from serving.server.config import Refusal

UInt8 = NDArray[np.uint8]

_SMOOTHING = 0.1  # weight of the newest image in the running mean of what one takes


@dataclass(frozen=True)
class Answer:
    """What came of one image.

    Attributes:
        segmentation: of the image.
        queue_ms: that it waited.
        engine_ms: that its batch took, with what is done before and after the engine.
        batch: images in that batch.
    """

    segmentation: Segmentation
    queue_ms: float
    engine_ms: float
    batch: int


@dataclass(eq=False)
class _Job:
    image: UInt8
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)

    @property
    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


class Batcher:
    """Runs images in threads of its own. `submit` and `withdraw` may be called from any thread.

    A batch holds images of one size: the oldest that waits, and those like it that wait behind it. With `delay_s` above
    zero a batch that is not full waits that long for more, counted from the arrival of its oldest image.

    Args:
        segment: what runs a batch, `[H,W,3]` uint8 each; called by several threads at once.
        workers: how many threads.
        max_batch: images in one batch.
        delay_s: see above.
        max_images: that may wait.
        max_pixels: of all images that wait; one image alone may always wait.
    """

    def __init__(
        self,
        segment: Callable[[Sequence[UInt8]], Sequence[Segmentation]],
        *,
        workers: int,
        max_batch: int,
        delay_s: float,
        max_images: int,
        max_pixels: int,
    ) -> None:
        self._segment = segment
        self._max_batch, self._delay_s = max_batch, delay_s
        self._max_images, self._max_pixels = max_images, max_pixels
        self._waiting: deque[_Job] = deque()
        self._pixels = 0
        self._running = 0
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_per_image = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Images in the engine, and in batches that wait for more."""
        return self._running

    def submit(self, images: Sequence[UInt8]) -> list[Future[Answer]]:
        """Put images at the end of the queue: all or none.

        Args:
            images: `[H,W,3]` uint8 each.

        Returns:
            For each image what will hold its answer, or the `UserError` of the engine.

        Raises:
            Refusal: 503 where the queue is too full for them, with when to come again; 413 for more than ever fit.
        """
        jobs = [_Job(image) for image in images]
        pixels = sum(job.pixels for job in jobs)
        if len(jobs) > self._max_images:
            raise Refusal(413, f"{len(jobs)} images in one request; at most {self._max_images} are taken: send fewer")
        with self._changed:
            if self._closing:
                raise Refusal(503, "the server is stopping", {"Retry-After": "5"})
            full = len(self._waiting) + len(jobs) > self._max_images
            if full or (self._waiting and self._pixels + pixels > self._max_pixels):
                again = self._seconds_per_image * len(self._waiting) / len(self._threads)
                raise Refusal(
                    503,
                    f"too busy: {len(self._waiting)} images wait and at most {self._max_images} may; come again",
                    {"Retry-After": str(max(math.ceil(again), 1))},
                )
            self._waiting.extend(jobs)
            self._pixels += pixels
            self._changed.notify_all()
        return [job.future for job in jobs]

    def withdraw(self, futures: Sequence[Future[Answer]]) -> None:
        """Take images back whose answer nobody waits for; those that run already go on."""
        gone = {id(future) for future in futures if future.cancel()}
        with self._changed:
            kept = deque(job for job in self._waiting if id(job.future) not in gone)
            self._waiting = kept
            self._pixels = sum(job.pixels for job in kept)

    def close(self) -> None:
        """Take no more, finish what waits, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while jobs := self._take():
            self._run(jobs)

    def _take(self) -> list[_Job]:
        """The next batch; empty when there will be none."""
        with self._changed:
            chosen: list[_Job] = []
            while not chosen:
                while not self._waiting:
                    if self._closing:
                        return []
                    self._changed.wait()
                self._gather(chosen, self._waiting[0].image.shape)
            until = chosen[0].since + self._delay_s
            while len(chosen) < self._max_batch and not self._closing:
                left = until - time.perf_counter()
                if left <= 0:
                    break
                self._changed.wait(left)
                self._gather(chosen, chosen[0].image.shape)
            return chosen

    def _gather(self, chosen: list[_Job], shape: tuple[int, ...]) -> None:
        """Move images of one size from the queue into a batch, the oldest first."""
        rest: deque[_Job] = deque()
        while self._waiting:
            job = self._waiting.popleft()
            if job.image.shape != shape or len(chosen) >= self._max_batch:
                rest.append(job)
                continue
            self._pixels -= job.pixels
            if job.future.set_running_or_notify_cancel():
                chosen.append(job)
                self._running += 1
        self._waiting = rest

    def _run(self, jobs: Sequence[_Job]) -> None:
        start = time.perf_counter()
        try:
            found = self._segment([job.image for job in jobs])
        except UserError as error:
            if len(jobs) == 1:
                self._leave(1)
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # what one image does to the engine is no other's fault
                self._run([job])
            return
        except Exception as error:  # noqa: BLE001 - a thread that ends would leave every later request waiting
            self._leave(len(jobs))
            for job in jobs:
                job.future.set_exception(error)
            return
        took = time.perf_counter() - start
        each = took / len(jobs)
        before = self._seconds_per_image
        self._seconds_per_image = each if before == 0 else before + _SMOOTHING * (each - before)
        self._leave(len(jobs))
        for job, segmentation in zip(jobs, found, strict=True):
            job.future.set_result(Answer(segmentation, (start - job.since) * 1e3, took * 1e3, len(jobs)))

    def _leave(self, count: int) -> None:
        with self._changed:
            self._running -= count
