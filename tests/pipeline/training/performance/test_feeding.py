from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from pipeline.training.performance.feeding import feed, workers_for
from serving.contract.errors import UserError
from tests.pipeline.conftest import HostWaits

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Pairs:
    """Random images; `broken` cannot be read."""

    def __init__(self, count: int = 6, broken: int | None = None) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return str(index)

    def size(self, index: int) -> tuple[int, int]:
        return 20, 28

    def read_image(self, index: int) -> np.ndarray:
        if index == self.broken:
            raise UserError(f"{index}: cannot be read")
        return np.random.default_rng(index).integers(0, 256, (20, 28, 3), dtype=np.uint8)

    def read_label(self, index: int) -> np.ndarray:
        return np.random.default_rng(100 + index).integers(0, 5, (20, 28), dtype=np.uint8)


def batches(pairs: Pairs, **options: Any) -> TrainingBatches:
    settings = {"batch_size": 2, "iterations": 3, "seed": 1} | options
    return TrainingBatches(pairs, AugmentConfig(crop=(16, 24), cache_decoded_bytes=0), **settings)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a CUDA device would be asked for, which lies in the memory of the host here."""
    log: list[str] = []
    inside = ["main"]

    class Event:
        def __init__(self, name: str) -> None:
            self.name = name

    class Stream:
        def __init__(self, device: object = None, name: str = "side") -> None:
            self.name, self.events = name, 0

        def record_event(self) -> Event:
            self.events += 1
            log.append(f"{self.name} records {self.events}")
            return Event(str(self.events))

        def wait_event(self, event: Event) -> None:
            log.append(f"{self.name} waits for {event.name}")

    @contextmanager
    def within(stream: Stream) -> Iterator[None]:
        inside.append(stream.name)
        yield
        inside.pop()

    def pin(tensor: Tensor) -> Tensor:
        log.append(f"pin {str(tensor.dtype).removeprefix('torch.')}")
        return tensor

    to = Tensor.to

    def copy(tensor: Tensor, *where: Any, **options: Any) -> Tensor:
        if where != (CUDA,):
            return to(tensor, *where, **options)
        assert options == {"non_blocking": True}
        log.append(f"{inside[-1]} copies {str(tensor.dtype).removeprefix('torch.')}")
        return tensor.clone()

    def record(tensor: Tensor, stream: Stream) -> None:
        log.append(f"{stream.name} reads {str(tensor.dtype).removeprefix('torch.')}")

    main = Stream(name="main")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", copy)
    monkeypatch.setattr(Tensor, "record_stream", record)
    return log


def test_on_the_cpu_the_batches_are_fed_as_they_are() -> None:
    plain = batches(Pairs())
    assert feed(plain, CPU) is plain


def test_a_batch_is_copied_from_pinned_memory_on_a_side_stream_one_step_ahead(calls: list[str]) -> None:
    calls.extend("step" for _ in feed(batches(Pairs()), CUDA))
    upload = ["pin uint8", "pin uint8", "side copies uint8", "side copies uint8"]
    reads = ["main reads uint8", "main reads uint8", "step"]
    assert calls == [
        *upload,
        "side records 1",
        *upload,
        "side records 2",
        "main waits for 1",
        *reads,
        *upload,
        "side records 3",
        "main waits for 2",
        *reads,
        "main waits for 3",
        *reads,
    ]


def test_what_is_fed_to_a_device_is_what_the_cpu_sees(calls: list[str]) -> None:
    expected = list(batches(Pairs()))
    fed = feed(batches(Pairs()), CUDA)
    for _ in range(2):  # iterating again starts again
        found = list(fed)
        assert [labels.dtype for _, labels in found] == [torch.int64] * 3
        for (image, label), (as_image, as_label) in zip(found, expected, strict=True):
            assert torch.equal(image, as_image)
            assert torch.equal(label, as_label)


def test_what_cannot_be_read_ends_the_training_after_the_batches_before_it(calls: list[str]) -> None:
    order = batches(Pairs())
    bad = order.names(2)[0]
    seen = []
    with pytest.raises(UserError, match=f"{bad}: cannot be read"):
        seen.extend(feed(batches(Pairs(broken=int(bad))), CUDA))
    assert len(seen) == 2


def test_workers_come_from_the_cores_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 2, 16, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)))
        found.append(workers_for(None, CUDA))
        assert workers_for(None, CPU) == 0
        assert [workers_for(0, CUDA), workers_for(3, CUDA), workers_for(3, CPU)] == [0, 3, 3]
    assert found == [1, 1, 14, 16]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_on_cuda_every_batch_arrives_whole_while_the_device_is_busy(workers: int) -> None:
    device = torch.device("cuda")
    expected = list(batches(Pairs(), iterations=12))
    busy = torch.randn(2048, 2048, device=device)
    found = []
    iterator = iter(feed(batches(Pairs(), iterations=12, workers=workers), device))
    for images, labels in iterator:
        for _ in range(20):
            busy = (busy @ busy).clamp_(-1, 1)
        found.append((images.clone(), labels.clone()))  # queued behind the products
        del images, labels
    assert len(found) == 12
    for (image, label), (as_image, as_label) in zip(found, expected, strict=True):
        assert torch.equal(image.cpu(), as_image)
        assert torch.equal(label.cpu(), as_label)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
def test_on_cuda_the_host_waits_for_no_upload(host_waits: HostWaits) -> None:
    device = torch.device("cuda")
    iterator = iter(feed(batches(Pairs(), iterations=6), device))
    next(iterator)
    torch.cuda.synchronize()
    with host_waits() as waits:
        assert sum(1 for _ in iterator) == 5
    assert waits == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
def test_the_test_would_see_a_host_that_waits(host_waits: HostWaits) -> None:
    value = torch.ones(3, device="cuda")
    with host_waits() as waits:
        value.sum().item()
    assert len(waits) == 1
