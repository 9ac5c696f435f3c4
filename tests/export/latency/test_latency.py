"""The harness: what it counts, when it stops, and that it notices a wrong stopwatch."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from export.latency.latency import KnownDuration, check_stopwatch, measure, percentiles_ms, quiet, warm_up

BATCH = np.zeros((1, 2, 2, 3), dtype=np.uint8)


class FakeTime:
    """A clock that stands still until a session takes time: exact, and no test waits."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class TimedSession:
    """A session whose queries take the given milliseconds, the last one for ever."""

    def __init__(self, clock, milliseconds):
        self.clock, self.milliseconds, self.batches = clock, list(milliseconds), []

    def infer(self, batch):
        self.batches.append(batch)
        self.clock.now += round(1e6 * self.milliseconds[min(len(self.batches), len(self.milliseconds)) - 1])
        return {}

    def close(self):
        pass


def test_every_sample_is_kept_and_none_is_clipped():
    clock = FakeTime()
    session = TimedSession(clock, [1, 2, 5000, 3])
    samples = measure(session, [BATCH], min_seconds=0.0, min_queries=4, clock=clock)
    assert samples.dtype == np.int64
    assert samples.tolist() == [1_000_000, 2_000_000, 5_000_000_000, 3_000_000]


@pytest.mark.parametrize(
    ("minima", "expected"),
    [
        ({"min_seconds": 0.1, "min_queries": 3}, 10),
        ({"min_seconds": 0.1, "min_queries": 25}, 25),
        ({"min_seconds": 0.1, "min_queries": 25, "max_seconds": 0.15}, 15),
        ({"min_seconds": 0.0, "min_queries": 0}, 1),
        ({"min_seconds": 0.001, "min_queries": 9, "max_seconds": 0.001}, 1),
    ],
)
def test_measurement_reaches_both_minima_unless_bounded(minima, expected):
    clock = FakeTime()
    assert len(measure(TimedSession(clock, [10]), [BATCH], clock=clock, **minima)) == expected


def test_queries_cycle_through_the_images():
    clock = FakeTime()
    session = TimedSession(clock, [1])
    measure(session, ["a", "b", "c"], min_seconds=0.0, min_queries=7, clock=clock)
    assert session.batches == ["a", "b", "c", "a", "b", "c", "a"]


def test_warm_up_goes_on_until_windows_agree():
    clock = FakeTime()
    session = TimedSession(clock, [50, 40, 30, 25, 20, 15, 13, 12, 11, *[10] * 100])
    result = warm_up(lambda: session.infer(BATCH), clock=clock, window=3, windows=3)
    assert result.stable and result.spread <= 0.05
    assert result.queries == 18  # medians 40, 20, 12, 10, 10, 10


def test_warm_up_that_never_settles_says_so():
    clock = FakeTime()
    session = TimedSession(clock, np.geomspace(1, 1e4, 400))
    result = warm_up(lambda: session.infer(BATCH), clock=clock, max_seconds=1.0)
    assert not result.stable and result.spread > 0.05 and result.seconds >= 1.0


def test_warm_up_of_a_slow_engine_fills_its_windows_whatever_the_bound():
    clock = FakeTime()
    session = TimedSession(clock, [10_000])
    result = warm_up(lambda: session.infer(BATCH), clock=clock, window=2, windows=3, max_seconds=1.0)
    assert result.queries == 6 and result.stable


def test_percentiles_are_those_of_all_samples():
    generator = np.random.default_rng(0)
    sessions = [generator.integers(1_000_000, 9_000_000, size=n) for n in (60, 70, 80)]
    pooled = np.concatenate(sessions) / 1e6
    result = percentiles_ms(sessions, generator=generator)
    for name, interval in result.items():
        assert interval.value == pytest.approx(np.percentile(pooled, int(name[1:])))
        assert interval.low <= interval.value <= interval.high


def test_a_percentile_that_the_samples_cannot_show_is_absent():
    sessions = [np.full(20, 1_000_000), np.full(30, 1_000_000)]
    result = percentiles_ms(sessions, generator=np.random.default_rng(0))
    assert result["p99"] is None
    assert {name for name, interval in result.items() if interval is not None} == {"p50", "p90", "p95"}
    assert percentiles_ms([np.array([5])], generator=np.random.default_rng(0))["p50"] is None


def test_garbage_collection_is_off_inside_and_back_after():
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="inside"), quiet():
        assert not gc.isenabled()
        raise RuntimeError("inside")
    assert gc.isenabled()


def test_stopwatch_is_right():
    result = check_stopwatch()
    assert result.passed, result
    assert result.measured_ms == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("factor", [0.9, 0.94, 1.06, 1.1, 1000.0])
def test_stopwatch_that_runs_wrong_is_noticed(monkeypatch, factor):
    """In simulated time, a microsecond per look at the clock: a busy machine can be late, and late looks like slow."""
    ticks = itertools.count(step=1000)
    monkeypatch.setattr("export.latency.latency._independent_clock", lambda: next(ticks))
    right = check_stopwatch(clock=lambda: next(ticks), queries=40)
    assert right.passed and right.deviation == pytest.approx(0, abs=0.01)
    wrong = check_stopwatch(clock=lambda: round(next(ticks) * factor), queries=40)
    assert not wrong.passed
    assert wrong.deviation == pytest.approx(factor - 1, abs=0.01 * factor)


def test_stopwatch_that_stops_too_early_is_noticed(monkeypatch):
    """As if a device were not waited for: `infer` comes back before the work is done."""
    monkeypatch.setattr(KnownDuration, "infer", lambda self, batch: {})
    assert not check_stopwatch(queries=40).passed


def test_harness_that_adds_time_of_its_own_is_noticed(monkeypatch):
    infer = KnownDuration.infer

    def slow(self, batch):
        infer(self, batch)
        return infer(KnownDuration(0.05), batch)

    monkeypatch.setattr(KnownDuration, "infer", slow)
    assert not check_stopwatch(queries=40).passed
