"""Measuring how long one engine takes: warm-up until stable, every sample kept, and a test of the stopwatch itself.

A query is one call of `infer` from the input array in host memory to the mask in host memory. Serving's runtimes give
host arrays, so that a device is synchronised before the clock is read again; what a runtime measures on the device
itself (CUDA events) it reports in `last_timings_ms`. The clock is monotonic and counts nanoseconds.
No sample is dropped, trimmed or clipped; medians resist interruptions, and the tail percentiles show them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import Interval, clustered_quantiles

Clock = Callable[[], int]
Batch = NDArray[Any]

PERCENTILES = (50, 90, 95, 99)
_INTERVAL_RESAMPLES = 2000


class Session(Protocol):
    """The part of serving's `Runtime` that the harness needs."""

    def infer(self, batch: Batch) -> Mapping[str, NDArray[Any]]:
        """Run one batch; the outputs lie in host memory when it returns."""

    def close(self) -> None:
        """Free what the session holds."""


Opener = Callable[[], Session]


@dataclass(frozen=True)
class WarmUp:
    """What happened before the first sample that counts.

    Attributes:
        queries: number of queries run.
        seconds: time they took.
        stable: whether the windows agreed before the time was up; a result without it is labelled.
        spread: largest over smallest median of the last windows, minus 1.
    """

    queries: int
    seconds: float
    stable: bool
    spread: float


def warm_up(
    query: Callable[[], object],
    *,
    clock: Clock = time.perf_counter_ns,
    window: int = 5,
    windows: int = 3,
    tolerance: float = 0.05,
    max_seconds: float = 3.0,
) -> WarmUp:
    """Run `query` until the medians of the last `windows` windows of `window` queries differ by at most `tolerance`.

    Ends unstable once `max_seconds` have passed, though never before all `windows` are filled once.
    """
    start = clock()
    medians: list[float] = []
    while True:
        medians.append(float(np.median([_timed(query, clock) for _ in range(window)])))
        seconds = (clock() - start) / 1e9
        if len(medians) < windows:
            continue
        last = medians[-windows:]
        spread = max(last) / max(min(last), 1.0) - 1
        if spread <= tolerance or seconds >= max_seconds:
            return WarmUp(len(medians) * window, seconds, spread <= tolerance, spread)


def measure(
    session: Session,
    batches: Sequence[Batch],
    *,
    min_seconds: float,
    min_queries: int,
    max_seconds: float | None = None,
    clock: Clock = time.perf_counter_ns,
) -> NDArray[np.int64]:
    """Latencies of single queries, in order, in nanoseconds.

    Args:
        session: an open, warmed-up session.
        batches: inputs that the queries cycle through.
        min_seconds: go on until the queries have taken this long together, and
        min_queries: are this many; but
        max_seconds: start no further query after this time. At least one query is always run.
        clock: monotonic nanoseconds.
    """
    samples: list[int] = []
    busy = 0
    start = clock()
    while True:
        before = clock()
        session.infer(batches[len(samples) % len(batches)])
        after = clock()
        samples.append(after - before)
        busy += after - before
        done = busy >= min_seconds * 1e9 and len(samples) >= min_queries
        if done or (max_seconds is not None and after - start >= max_seconds * 1e9):
            return np.asarray(samples, dtype=np.int64)


@contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection of the interpreter inside the block, as in the standard library's timeit."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def percentiles_ms(
    sessions: Sequence[NDArray[np.int64]], *, generator: np.random.Generator, resamples: int = _INTERVAL_RESAMPLES
) -> dict[str, Interval | None]:
    """Percentiles of latency over several sessions, in milliseconds, with 95 % intervals clustered by session.

    Args:
        sessions: the raw samples of each session, nanoseconds.
        generator: source of the bootstrap.
        resamples: bootstrap resamples.

    Returns:
        `{"p50": ..., "p90": ..., "p95": ..., "p99": ...}`. None for a percentile that the number of samples cannot
        show: a p99 needs at least 100 of them.
    """
    total = sum(len(samples) for samples in sessions)
    shown = [p for p in PERCENTILES if total * (100 - p) >= 100]
    result: dict[str, Interval | None] = {f"p{p}": None for p in PERCENTILES}
    if shown:
        clusters = [samples / 1e6 for samples in sessions]
        quantiles = [p / 100 for p in shown]
        intervals = clustered_quantiles(clusters, quantiles, resamples=resamples, generator=generator)
        result.update({f"p{p}": interval for p, interval in zip(shown, intervals, strict=True)})
    return result


@dataclass(frozen=True)
class StopwatchCheck:
    """Whether the stopwatch measures a known duration correctly.

    Attributes:
        expected_ms: how long the operation takes, by another clock of the operating system.
        measured_ms: median of what the harness measured.
        deviation: `measured / expected - 1`.
        tolerance: largest magnitude of the deviation that passes.
        queries: number of samples.
    """

    expected_ms: float
    measured_ms: float
    deviation: float
    tolerance: float
    queries: int

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the tolerance."""
        return abs(self.deviation) <= self.tolerance


class KnownDuration:
    """A session whose every query lasts `duration_ms`, by a clock other than the harness's."""

    def __init__(self, duration_ms: float) -> None:
        self.duration_ns = round(duration_ms * 1e6)

    def infer(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """Spin for the duration: sleeping would add the wake-up time of the operating system's scheduler."""
        end = _independent_clock() + self.duration_ns
        while _independent_clock() < end:
            pass
        return {}

    def close(self) -> None:
        """Nothing is held."""


def check_stopwatch(
    *,
    clock: Clock = time.perf_counter_ns,
    duration_ms: float = 0.5,
    queries: int = 200,
    tolerance: float = 0.05,
    attempts: int = 3,
) -> StopwatchCheck:
    """Measure an operation of known duration the way engines are measured.

    A machine so busy that more than half of the half-millisecond operations are interrupted fails too; that may pass
    with time, so that the best of `attempts` counts. A wrong clock or a slow harness fails every time.
    """
    session = KnownDuration(duration_ms)
    batch: Batch = np.zeros((1, 1, 1, 3), dtype=np.uint8)
    best: StopwatchCheck | None = None
    with quiet():
        for _ in range(attempts):
            samples = measure(session, [batch], min_seconds=0.0, min_queries=queries, clock=clock)
            measured = float(np.median(samples)) / 1e6
            result = StopwatchCheck(duration_ms, measured, measured / duration_ms - 1, tolerance, queries)
            if best is None or abs(result.deviation) < abs(best.deviation):
                best = result
            if best.passed:
                break
    assert best is not None
    return best


def _timed(query: Callable[[], object], clock: Clock) -> int:
    before = clock()
    query()
    return clock() - before


def _independent_clock() -> int:
    """Nanoseconds of a clock that is not `perf_counter`: the raw hardware counter where the system offers it."""
    raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.monotonic_ns() if raw is None else time.clock_gettime_ns(raw)
