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


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far: on CUDA what tensors took of the device, else what this process took of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
