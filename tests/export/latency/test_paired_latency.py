"""Session pairs: the order they open and run in, what cancels, and what is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.latency.latency import KnownDuration
from export.latency.paired_latency import (
    PairPlan,
    SessionComparison,
    load_pairs,
    measure_comparisons,
    median_ratio,
    save_samples,
)
from pipeline.evaluation.intervals import equivalence
from serving.contract.errors import UserError

BATCHES = [np.zeros((1, 2, 2, 3), dtype=np.uint8), np.ones((1, 2, 2, 3), dtype=np.uint8)]
PLAN = PairPlan(looks=(8,), pair_seconds=0.0, min_blocks=6)


class Machine:
    """Sessions on a clock that only they advance; each query takes `drift` ms longer than the one before."""

    def __init__(self, drift=0.0):
        self.now, self.queries, self.drift, self.log = 0, 0, drift, []

    def __call__(self):
        return self.now

    def opener(self, name, milliseconds):
        def open_session():
            self.log.append(("open", name))
            return _Session(self, name, milliseconds)

        return open_session


class _Session:
    def __init__(self, machine, name, milliseconds):
        self.machine, self.name, self.milliseconds = machine, name, milliseconds

    def infer(self, batch):
        self.machine.queries += 1
        self.machine.now += round(1e6 * (self.milliseconds + self.machine.drift * self.machine.queries))
        self.machine.log.append((self.name, int(batch.flat[0])))
        return {}

    def close(self):
        self.machine.log.append(("close", self.name))


def run(machine, comparisons, plan=PLAN, decided=lambda pairs: False, seed=0):
    return measure_comparisons(
        comparisons, BATCHES, plan, decided=decided, generator=np.random.default_rng(seed), clock=machine
    )


def compared(machine, baseline=10.0, other=10.0, name="other"):
    return SessionComparison(name, ((machine.opener("a", baseline), machine.opener("b", other)),))


def test_ratio_of_known_latencies():
    machine = Machine()
    pairs = run(machine, [compared(machine, 10.0, 10.7)])["other"]
    ratio = median_ratio(pairs, resamples=1000, generator=np.random.default_rng(0), confidence=0.95)
    assert ratio.value == pytest.approx(1.07)
    assert (ratio.low, ratio.high) == (pytest.approx(1.07), pytest.approx(1.07))


def test_linear_drift_cancels():
    machine = Machine(drift=0.05)
    pairs = run(machine, [compared(machine)])["other"]
    assert max(abs(pair.log_ratios).max() for pair in pairs) < 1e-9
    first_two = [pair.latencies_ns[:, 0] - pair.latencies_ns[:, 2] for pair in pairs]
    assert abs(np.concatenate(first_two)).max() > 0  # what A-B without the mirror would have seen


def test_pairs_are_fresh_and_closed_before_the_next_opens():
    machine = Machine()
    run(machine, [compared(machine)])
    events = [event for event in machine.log if event[0] in ("open", "close")]
    assert len(events) == 8 * 4
    for start in range(0, len(events), 4):
        kinds = [kind for kind, _ in events[start : start + 4]]
        assert kinds == ["open", "open", "close", "close"]
        assert {name for _, name in events[start : start + 2]} == {"a", "b"}


def test_order_of_opening_is_random_and_balanced():
    firsts = []
    for seed in range(20):
        machine = Machine()
        pairs = run(machine, [compared(machine)], seed=seed)["other"]
        opened = [name for kind, name in machine.log if kind == "open"][::2]
        assert [name == "a" for name in opened] == [pair.baseline_opened_first for pair in pairs]
        assert opened.count("a") == 4
        firsts.append(tuple(opened))
    assert len(set(firsts)) > 5


def test_blocks_are_mirrored_balanced_and_see_one_image():
    machine = Machine()
    pairs = run(machine, [compared(machine)])["other"]
    assert all(pair.baseline_first.sum() == 3 and len(pair.baseline_first) == 6 for pair in pairs)
    queries = [event for event in machine.log if event[0] in ("a", "b", "close")]
    end = queries.index(("close", "a"))
    blocks = [queries[end - 24 + 4 * i : end - 20 + 4 * i] for i in range(6)]
    for block, baseline_first in zip(blocks, pairs[0].baseline_first, strict=True):
        assert "".join(name for name, _ in block) == ("abba" if baseline_first else "baab")
        assert len({image for _, image in block}) == 1


def test_comparisons_take_turns_in_one_run():
    machine = Machine()
    comparisons = [compared(machine, name=name) for name in ("control", "first", "second")]
    pairs = run(machine, comparisons)
    assert {name: len(samples) for name, samples in pairs.items()} == {"control": 8, "first": 8, "second": 8}


def test_seeds_take_turns():
    machine = Machine()
    variants = tuple((machine.opener(f"a{s}", 10.0), machine.opener(f"b{s}", 10.0 + s)) for s in range(3))
    pairs = run(machine, [SessionComparison("other", variants)])["other"]
    assert [pair.variant for pair in pairs] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [round(float(np.exp(pair.log_ratios[0])), 3) for pair in pairs[:3]] == [1.0, 1.1, 1.2]


def test_looks_end_when_decided_or_at_the_bound():
    plan = PairPlan(looks=(8, 16, 32), pair_seconds=0.0, min_blocks=1)
    asked = []

    def decided(pairs):
        asked.append(len(pairs["other"]))
        return len(pairs["other"]) >= 16

    machine = Machine()
    assert len(run(machine, [compared(machine)], plan, decided)["other"]) == 16
    assert asked == [8, 16]
    machine = Machine()
    assert len(run(machine, [compared(machine)], plan)["other"]) == 32


def test_pair_goes_on_for_its_time():
    machine = Machine()
    pairs = run(machine, [compared(machine)], PairPlan(looks=(8,), pair_seconds=1.0, min_blocks=2))["other"]
    assert all(len(pair.latencies_ns) == 26 for pair in pairs)  # 40 ms a block, ABBA and BAAB equally often


def test_sessions_are_closed_when_one_does_not_open_or_run():
    machine = Machine()

    def broken():
        raise OSError("no such engine")

    with pytest.raises(OSError, match="no such engine"):
        run(machine, [SessionComparison("other", ((machine.opener("a", 1.0), broken),))])
    kinds = [event[0] for event in machine.log]
    assert kinds.count("open") == kinds.count("close")


def test_samples_survive_the_file(tmp_path):
    machine = Machine(drift=0.01)
    pairs = run(machine, [compared(machine, name="control"), compared(machine, 10.0, 12.0)])
    path = tmp_path / "samples.npz"
    save_samples(path, pairs, {"baseline-s0/ort_fp32": [np.arange(5)]})
    loaded = load_pairs(path)
    assert list(loaded) == sorted(pairs)
    for name, samples in pairs.items():
        for before, after in zip(samples, loaded[name], strict=True):
            assert np.array_equal(before.latencies_ns, after.latencies_ns)
            assert np.array_equal(before.baseline_first, after.baseline_first)
            assert before.baseline_opened_first == after.baseline_opened_first
            assert before.other_warm_up == after.other_warm_up
    with np.load(path) as arrays:
        assert arrays["engines/baseline-s0/ort_fp32/0000"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: b"", lambda data: b"not a zip file"])
def test_damaged_file_is_refused(tmp_path, damage):
    machine = Machine()
    path = tmp_path / "samples.npz"
    save_samples(path, run(machine, [compared(machine)]))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="run `benchmark` again"):
        load_pairs(path)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_pairs(path)


@pytest.mark.parametrize(("other", "verdict"), [(0.3, "pass"), (0.33, "fail")])
def test_real_clock_tells_ten_percent_from_nothing(other, verdict):
    comparison = SessionComparison("other", ((lambda: KnownDuration(0.3), lambda: KnownDuration(other)),))
    pairs = measure_comparisons(
        [comparison],
        BATCHES,
        PairPlan(looks=(8,), pair_seconds=0.0, min_blocks=20),
        decided=lambda pairs: False,
        generator=np.random.default_rng(0),
    )["other"]
    ratio = median_ratio(pairs, resamples=2000, generator=np.random.default_rng(0), confidence=0.95)
    assert equivalence(ratio, 0.02) == verdict
    assert math.isclose(ratio.value, other / 0.3, rel_tol=0.02)
