"""Are the intervals as wide as they claim, and the verdicts as rarely wrong? By simulation with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.evaluation.intervals as intervals
from pipeline.evaluation.intervals import (
    Interval,
    clustered_mean,
    clustered_quantiles,
    confidence_per_look,
    equivalence,
    tail_probability,
)

# Effects of a session pair on the logarithm of the ratio, about as large as they are found: placement alone moves two
# sessions of one file apart by up to 2 %.
PLACEMENTS = {
    "normal": lambda generator, pairs: generator.normal(0, 0.005, pairs),
    "heavy-tailed": lambda generator, pairs: 0.004 * generator.standard_t(3, pairs),
    "two places": lambda generator, pairs: 0.01 * (generator.integers(0, 2, pairs) - generator.integers(0, 2, pairs)),
    "none": lambda generator, pairs: np.zeros(pairs),
}


def simulated_pairs(generator, placement, pairs, blocks=12, noise=0.01):
    """Log ratios `[blocks]` of each pair: one placement per pair, block noise with one in seven blocks interrupted."""
    noise = generator.normal(0, noise, (pairs, blocks))
    interrupted = generator.random((pairs, blocks)) < 0.15
    noise = np.where(interrupted, generator.normal(0, 0.2, (pairs, blocks)), noise)
    return list(PLACEMENTS[placement](generator, pairs)[:, None] + noise)


def median_interval(generator, clusters, confidence=0.95, resamples=600):
    return clustered_quantiles(clusters, [0.5], resamples=resamples, generator=generator, confidence=confidence)[0]


def coverage(placement, pairs, trials):
    generator = np.random.default_rng(17)
    hits = 0
    for _ in range(trials):
        interval = median_interval(generator, simulated_pairs(generator, placement, pairs))
        hits += interval.low <= 0 <= interval.high
    return hits / trials


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_interval_of_eight_pairs_covers_about_95_percent(placement):
    assert 0.91 <= coverage(placement, 8, 250) <= 0.985


def test_plain_percentile_interval_covers_too_little(monkeypatch):
    """The guard of the guard: without the expansion the same simulation finds the interval too narrow."""
    monkeypatch.setattr(intervals, "tail_probability", lambda clusters, confidence: (1 - confidence) / 2)
    assert coverage("two places", 8, 250) < 0.91


def test_resampling_blocks_instead_of_pairs_covers_far_too_little():
    generator = np.random.default_rng(17)
    hits = 0
    for _ in range(100):
        blocks = np.concatenate(simulated_pairs(generator, "two places", 8))
        interval = median_interval(generator, list(blocks[:, None]), resamples=300)
        hits += interval.low <= 0 <= interval.high
    assert hits / 100 < 0.8


def pass_rate(true_log_ratio, looks, per_look, trials, margin=0.02, resamples=600):
    generator = np.random.default_rng(5)
    passes = 0
    for _ in range(trials):
        pairs = simulated_pairs(generator, "normal", looks[-1])
        for look in looks:
            interval = median_interval(generator, [p + true_log_ratio for p in pairs[:look]], per_look, resamples)
            ratio = Interval(*(math.exp(v) for v in (interval.value, interval.low, interval.high)))
            verdict = equivalence(ratio, margin)
            if verdict != "inconclusive":
                passes += verdict == "pass"
                break
    return passes / trials


def test_a_difference_as_large_as_the_margin_seldom_passes():
    """The nominal rate is 2.5 %: one side of a 95 % interval."""
    assert pass_rate(math.log(1.02), (8,), 0.95, 300) <= 0.045


def test_equal_engines_nearly_always_pass():
    assert pass_rate(0.0, (8,), 0.95, 200) >= 0.9


def test_looking_again_until_decided_does_not_pass_a_difference_either():
    looks = (8, 16, 32)
    corrected = pass_rate(math.log(1.02), looks, confidence_per_look(len(looks)), 150, resamples=300)
    uncorrected = pass_rate(math.log(1.02), looks, 0.95, 150, resamples=300)
    assert corrected <= 0.045
    assert corrected < uncorrected


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    quantile=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_resampled_quantiles_are_those_of_the_repeated_clusters(sizes, quantile, seed):
    generator = np.random.default_rng(seed)
    clusters = [generator.normal(size=size).round(1) for size in sizes]  # rounded: ties occur
    counts = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=20)
    pooled = np.concatenate(clusters)
    order = np.argsort(pooled, kind="stable")
    owners = np.repeat(np.arange(len(sizes)), sizes)[order]
    got = intervals._resampled_quantiles(pooled[order], owners, counts, [quantile])[:, 0]
    for row, value in zip(counts, got, strict=True):
        repeated = np.concatenate([np.tile(cluster, n) for cluster, n in zip(clusters, row, strict=True)])
        assert value == pytest.approx(np.quantile(repeated, quantile), abs=1e-12)


def test_estimate_is_the_plain_quantile_of_everything_measured():
    clusters = [np.array([1.0, 2.0, 1000.0]), np.array([3.0, 4.0])]
    result = clustered_quantiles(clusters, [0.5, 1.0], resamples=100, generator=np.random.default_rng(0))
    assert [interval.value for interval in result] == [3.0, 1000.0]


def test_same_seed_same_interval():
    clusters = [np.random.default_rng(i).normal(size=5) for i in range(4)]
    first, second = (
        clustered_quantiles(clusters, [0.5], resamples=200, generator=np.random.default_rng(3)) for _ in range(2)
    )
    assert first == second


def test_one_cluster_has_no_interval_and_no_verdict():
    interval = clustered_quantiles([np.ones(9)], [0.5], resamples=100, generator=np.random.default_rng(0))[0]
    assert interval.value == 1.0 and not interval.bounded
    assert equivalence(interval, 0.02) == "inconclusive"
    assert not clustered_mean(np.array([2.0]), resamples=100, generator=np.random.default_rng(0)).bounded


@pytest.mark.parametrize("clusters", [[], [np.array([])], [np.ones(2), np.array([])]])
def test_nothing_measured_is_refused(clusters):
    with pytest.raises(ValueError, match="at least one"):
        clustered_quantiles(clusters, [0.5], resamples=100, generator=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.99, 1.01, "pass"),
        (0.98, 1.02, "pass"),
        (0.99, 1.03, "inconclusive"),
        (0.97, 1.03, "inconclusive"),
        (0.97, 0.99, "inconclusive"),
        (1.021, 1.05, "fail"),
        (0.90, 0.979, "fail"),
    ],
)
def test_verdict_by_where_the_interval_lies(low, high, verdict):
    assert equivalence(Interval((low + high) / 2, low, high), 0.02) == verdict


def test_tail_probability_approaches_the_plain_one():
    tails = [tail_probability(n) for n in (2, 4, 8, 16, 1000)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(0.025, rel=0.01)
    assert tails[2] == pytest.approx(0.0057, abs=0.0002)  # 2.365 * sqrt(8 / 7) = 2.528 standard deviations


def test_mean_over_clusters():
    interval = clustered_mean(np.array([1.0, 2.0, 3.0, 4.0]), resamples=2000, generator=np.random.default_rng(0))
    assert interval.value == 2.5
    assert 1.0 <= interval.low < 2.5 < interval.high <= 4.0
