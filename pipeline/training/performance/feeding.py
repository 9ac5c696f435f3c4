"""How batches reach the device that trains, and how many processes make them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.reading.decoded_cache import can_fork
from serving.contract.errors import UserError

Batch = tuple[Tensor, Tensor]
_SPARE_CORES, _MOST_WORKERS = 2, 16


def workers_for(workers: int | None, device: torch.device, *, processes: int = 1) -> int:
    """Processes that read and augment: those asked for, or what suits the device.

    Args:
        workers: `train.workers`; None for one per core that this process may use but two (for the training and the
            thread that pins), at most 16, on CUDA, and none on the CPU, whose cores the training itself takes.
        device: where the training runs.
        processes: ranks on this machine, which share its cores.
    """
    if workers is not None:
        return workers
    if device.type != "cuda" or not can_fork():
        return 0
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(allowed // processes - _SPARE_CORES, 1), _MOST_WORKERS)


class CompactBatches(Protocol):
    """`TrainingBatches`, or what gives batches as they do."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over `(images uint8 [B,3,h,w], labels int64 [B,h,w])`."""

    def compact(self, *, pinned: bool = False) -> Generator[Batch]:
        """The same with labels as uint8, in page-locked memory where `pinned`."""


def feed(batches: CompactBatches, device: torch.device) -> Iterable[Batch]:
    """The batches as `(images uint8 [B,3,h,w], labels int64 [B,h,w])`; those for CUDA are there already.

    On the CPU they are the batches themselves.
    """
    return _OnDevice(batches, device) if device.type == "cuda" else batches


@dataclass(frozen=True)
class _Upload:
    """Copies that a side stream makes, `done` when it has made them."""

    images: Tensor
    labels: Tensor
    done: torch.cuda.Event


class _OnDevice:
    """Copies every batch from pinned memory on a side stream while the step before it computes.

    Labels travel as uint8, a byte a pixel in place of eight, and widen on the device.
    """

    def __init__(self, batches: CompactBatches, device: torch.device) -> None:
        self._batches = batches
        self._device = device

    def __iter__(self) -> Iterator[Batch]:
        """Iterate from the first batch again."""
        return self._uploaded()

    def _uploaded(self) -> Generator[Batch]:
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        problem: UserError | None = None
        with closing(self._batches.compact(pinned=True)) as source:
            ahead = self._upload(next(source, None), stream)
            while ahead is not None:
                current, ahead = ahead, None
                try:
                    ahead = self._upload(next(source, None), stream)
                except UserError as error:
                    problem = error  # of the batch after this one, which is trained on first, as without a stream
                yield self._arrived(current)
        if problem is not None:
            raise problem

    def _upload(self, batch: Batch | None, stream: torch.cuda.Stream) -> _Upload | None:
        """Start to copy a batch; None after the last.

        The allocator of pinned memory keeps a source until the copies that the stream makes of it are over, so that
        no batch need be held here.
        """
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            images, labels = (each.to(self._device, non_blocking=True) for each in batch)
            return _Upload(images, labels, stream.record_event())

    def _arrived(self, upload: _Upload) -> Batch:
        """The batch, for what is queued on the current stream from now on."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(upload.done)  # not for the whole stream, which copies the next batch already
        for each in (upload.images, upload.labels):
            each.record_stream(current)  # their memory is the side stream's: not to be given out while this one reads
        return upload.images, upload.labels.long()
