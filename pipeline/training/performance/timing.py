"""Where the time of a training goes, part by part, without waiting for the device in a step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

PARTS = (
    "data_wait",
    "upload",
    "forward",
    "loss",
    "contrast",
    "backward",
    "optimiser",
    "validation",
    "checkpoint",
)


@dataclass(frozen=True)
class Clock:
    """How moments are taken.

    Attributes:
        stamp: the moment now.
        seconds: between two stamps.
        settle: waits until all stamps can be compared.
    """

    stamp: Callable[[], Any]
    seconds: Callable[[Any, Any], float]
    settle: Callable[[], None]


def clock_of(device: torch.device) -> Clock:
    """The processor's clock, or on CUDA events on the current stream: what the device was busy with, or waited for."""
    if device.type != "cuda":
        return Clock(time.perf_counter, lambda first, last: last - first, lambda: None)

    def stamp() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def settle() -> None:
        torch.cuda.current_stream(device).synchronize()

    return Clock(stamp, lambda first, last: first.elapsed_time(last) / 1000, settle)


class Stopwatch:
    """Adds up the time between marks under the names of the parts that end there.

    Args:
        clock: how moments are taken.

    Example:
        >>> moments = iter([0.0, 1.0, 4.0, 9.0])
        >>> watch = Stopwatch(Clock(lambda: next(moments), lambda first, last: last - first, lambda: None))
        >>> watch.mark("data_wait")
        >>> watch.mark("forward")
        >>> watch.pop()
        {'data_wait': 1.0, 'forward': 3.0}
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = clock.stamp()
        self._spans: list[tuple[str, Any, Any]] = []

    def mark(self, part: str) -> None:
        """The time since the last mark was `part`'s."""
        now = self._clock.stamp()
        self._spans.append((part, self._last, now))
        self._last = now

    def pop(self) -> dict[str, float]:
        """Seconds per part since the last call. Waits for the device."""
        self._clock.settle()
        seconds: dict[str, float] = {}
        for part, first, last in self._spans:
            seconds[part] = seconds.get(part, 0.0) + self._clock.seconds(first, last)
        self._spans = []
        return seconds


@dataclass(frozen=True)
class TimeReport:
    """Where the time of a whole training went, on one machine.

    Attributes:
        seconds_per_part: of the whole training, validations and checkpoints included.
        images_per_second: training images over the time of all parts but validation and checkpoint.
        peak_memory_bytes: of the device, or of the process on the CPU, in the last run of a training that was resumed.
        epochs: for every report of metrics: finished iterations, and seconds per part since the one before.
        device: what it ran on.
        precision: of autocast, or fp32.
        threads: of torch on the CPU.
    """

    seconds_per_part: dict[str, float]
    images_per_second: float | None
    peak_memory_bytes: int
    epochs: list[dict[str, Any]]
    device: str
    precision: str
    threads: int


def time_report(
    epochs: list[dict[str, Any]], *, images: int, device: torch.device, dtype: torch.dtype | None, threads: int
) -> TimeReport:
    """Add up what was taken per epoch.

    Args:
        epochs: `{iteration, seconds: {part: seconds}}` each.
        images: that were trained on in all of them.
        device: what it ran on.
        dtype: of autocast, or None.
        threads: of torch.
    """
    total = {part: sum(epoch["seconds"].get(part, 0.0) for epoch in epochs) for part in PARTS}
    stepping = sum(seconds for part, seconds in total.items() if part not in ("validation", "checkpoint"))
    return TimeReport(
        seconds_per_part=total,
        images_per_second=images / stepping if stepping else None,
        peak_memory_bytes=peak_memory_bytes(device),
        epochs=epochs,
        device=device_name(device),
        precision=precision_name(dtype),
        threads=threads,
    )


def device_name(device: torch.device) -> str:
    """What a person calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def precision_name(dtype: torch.dtype | None) -> str:
    """What autocast computes in."""
    return "fp32" if dtype is None else str(dtype).removeprefix("torch.").replace("bfloat16", "bf16")


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far: on CUDA what tensors took of the device, else what this process took of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
