"""Carrying images through: read, segment, write; what became of each, in a record.

Every thread takes an image (or a batch) all the way, so that decoding, the engine and encoding overlap without queues
between them, and no more images are in memory than there are threads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError, shown
from serving.contract.files import is_full
from serving.engines.predictor import Predictor, Segmentation
from serving.images.decoding import MAX_PIXELS
from serving.inference.marks import source_name
from serving.inference.planning import Job
from serving.inference.results import ResultWriter
from serving.inference.supply import read_unmarked, sample

UInt8 = NDArray[np.uint8]
Status = Literal["done", "failed", "left out", "skipped"]

_BATCH_GAIN = 0.95  # a batch has to take less than this share of its images' time alone
_TRIED_BATCH = 4


@dataclass
class Record:
    """What became of one image.

    Attributes:
        job: the image and where its results go.
        source: the `source_name` of the image's file, from before it was read.
        status: `left out` for results of earlier runs, `skipped` for what an earlier run did already.
        problem: in a line, where it failed.
        by_engine: whether the engine failed, and not the reading or writing.
        is_full: whether there is no room for results.
        notes: what was done with the image that its owner may want to know.
        height, width: in pixels.
        areas: pixels of every class; None where nobody asked.
        timings_ms: `decode`, `preprocess`, `engine`, `postprocess`, `encode`, in milliseconds.
    """

    job: Job
    source: str = ""
    status: Status = "done"
    problem: str = ""
    by_engine: bool = False
    is_full: bool = False
    notes: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    areas: list[int] | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)

    def to_json(self, writer: ResultWriter, engine_sha256: str) -> dict[str, Any]:
        """What `--json` prints of it: only what is known."""
        values: dict[str, Any] = {"path": self.job.image.path, "status": self.status}
        if self.job.frame is not None and self.job.frame.number is not None:
            values |= {"frame": self.job.frame.number, "time_s": self.job.frame.time_s}
        if self.status == "failed":
            values["problem"] = self.problem
        if self.status in ("done", "skipped"):
            values["results"] = writer.paths(self.job)
            values["engine_sha256"] = engine_sha256
        if self.status == "done":
            values |= {"height": self.height, "width": self.width}
            values["timings_ms"] = {part: round(value, 3) for part, value in self.timings_ms.items()}
        if self.notes:
            values["notes"] = list(self.notes)
        if self.areas is not None:
            names = writer.manifest.class_names
            total = max(self.height * self.width, 1)
            values["areas"] = {name: round(area / total, 6) for name, area in zip(names, self.areas, strict=True)}
        return values


@dataclass(frozen=True)
class Carrier:
    """Carries images through an engine; several threads may use one.

    Attributes:
        predictor: the open engine.
        writer: of the results.
        max_pixels: larger images are refused.
        skip_existing: whether images are skipped whose results this engine and these settings made already.
        areas: whether to count the pixels of every class.
    """

    predictor: Predictor
    writer: ResultWriter
    max_pixels: int = MAX_PIXELS
    skip_existing: bool = False
    areas: bool = False

    def carry(self, jobs: Sequence[Job]) -> list[Record]:
        """Read, segment and write some images: those of one size together. Whatever fails is said in its record."""
        records = [Record(job) for job in jobs]
        images: dict[int, UInt8] = {}
        for index, record in enumerate(records):
            try:
                image = self._read(record)
            except UserError as error:
                _fail(record, error, self.writer)
            else:
                if image is not None:
                    images[index] = image
        for index, segmentation in self._segment(records, images):
            record, image = records[index], images[index]
            start = time.perf_counter_ns()
            try:
                self.writer.write(record.job, image, segmentation, record.source)
            except UserError as error:
                _fail(record, error, self.writer)
                continue
            except MemoryError:
                _fail(record, UserError(f"{record.job.name}: too little memory to write its results"), self.writer)
                continue
            record.timings_ms["encode"] = (time.perf_counter_ns() - start) / 1e6
            if self.areas:
                counts = np.bincount(segmentation.mask.ravel(), minlength=self.predictor.manifest.num_classes)
                record.areas = counts[: self.predictor.manifest.num_classes].tolist()
        return records

    def _read(self, record: Record) -> UInt8 | None:
        """The image; None where there is nothing to do with it."""
        job = record.job
        record.source = source_name(job.image.path)
        if self.skip_existing and self.writer.is_done(job, record.source):
            record.status = "skipped"
            return None
        start = time.perf_counter_ns()
        if job.frame is not None:
            decoded, record.timings_ms["decode"] = job.frame.read()
        else:
            image = read_unmarked(job.image.path, self.max_pixels)
            if image is None:
                record.status = "left out"
                return None
            decoded = image
            record.timings_ms["decode"] = (time.perf_counter_ns() - start) / 1e6
        record.notes = decoded.notes
        record.height, record.width = decoded.pixels.shape[:2]
        return decoded.pixels

    def _segment(self, records: Sequence[Record], images: dict[int, UInt8]) -> Iterator[tuple[int, Segmentation]]:
        """Segment images together, and one by one where that fails: which of them is at fault has to be said."""
        if not images:
            return
        try:
            together = self.predictor.segment(list(images.values()))
        except UserError as error:
            if len(images) == 1:
                (index,) = images
                _fail(records[index], error, self.writer, by_engine=True)
                return
            for index, image in images.items():
                yield from self._segment(records, {index: image})
            return
        timings = {part: value / len(images) for part, value in self.predictor.timings_ms.items()}
        for index, segmentation in zip(images, together, strict=True):
            records[index].timings_ms |= timings
            yield index, segmentation


def chunks(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """The jobs in order, `size` at a time."""
    rest = iter(jobs)
    while chunk := list(islice(rest, size)):
        yield chunk


def faster_batch(predictor: Predictor, jobs: Sequence[Job], max_pixels: int) -> int:
    """How many images to run at once, measured on the first that can be read: 1, or more where that is faster.

    Only what the engine takes counts: one made for a fixed batch gets it full.
    """
    least, most = predictor.runtime.batch_range
    if least > 1 or (most or _TRIED_BATCH) < 2:
        return least
    size = min(most or _TRIED_BATCH, _TRIED_BATCH)
    for job in jobs[:size]:
        try:
            pixels = sample(job, max_pixels)
            if pixels is None:
                continue
            alone, together = ([pixels], [pixels] * size)
            for images in (alone, together):  # the first run of a shape prepares it
                predictor.segment(images)
            times = [min(_time(predictor, images) for _ in range(3)) for images in (alone, together)]
        except UserError:
            continue
        return size if times[1] < _BATCH_GAIN * size * times[0] else 1
    return 1


def _time(predictor: Predictor, images: list[UInt8]) -> float:
    start = time.perf_counter_ns()
    predictor.segment(images)
    return time.perf_counter_ns() - start


def _fail(record: Record, error: UserError, writer: ResultWriter, *, by_engine: bool = False) -> None:
    """Note why an image failed, and which results of an earlier run are still there in its name."""
    old = writer.of_other_runs(record.job, record.source)
    still = f" ({', '.join(map(shown, old))}: still there, of an earlier run)" if old else ""
    path = f"{shown(record.job.name)}: " if by_engine else ""
    record.status, record.by_engine, record.is_full = "failed", by_engine, is_full(error)
    record.problem = f"{path}{shown(error)}{still}"
