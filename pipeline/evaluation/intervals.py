"""Confidence intervals for what comes in clusters: latencies of sessions, ratios of session pairs, and their verdict.

Queries of one session are not independent draws: where a session's memory landed shifts all of them by up to 2 %, for
as long as the session lives. An interval over queries would be far too narrow. Here whole clusters are resampled, and
the number of clusters decides how wide the interval is.

The percentile bootstrap is too narrow for few clusters: over 8 it covers 88 % instead of 95 %. The tail probabilities
are therefore those of Hesterberg's expanded percentile interval, `Phi(-sqrt(n / (n - 1)) t_{a/2, n-1})` for n clusters
(T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015, section 4.3):
exact for normal cluster means, and within a point or two of 95 % for heavy-tailed and bimodal ones (see the tests).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Verdict = Literal["pass", "fail", "inconclusive"]

CONFIDENCE = 0.95
_CELLS_AT_ONCE = 4_000_000  # bounds the memory


@dataclass(frozen=True)
class Interval:
    """An estimate between two bounds, in the unit of what was measured. Bounds are NaN where there is one cluster."""

    value: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there was more than one cluster."""
        return not (math.isnan(self.low) or math.isnan(self.high))


def tail_probability(clusters: int, confidence: float = CONFIDENCE) -> float:
    """Probability left out on each side of the bootstrap distribution of `clusters` clusters (at least 2)."""
    quantile = stats.t.ppf((1 - confidence) / 2, clusters - 1)
    return float(stats.norm.cdf(math.sqrt(clusters / (clusters - 1)) * quantile))


def expanded_percentiles(
    estimates: NDArray[np.float64], clusters: int, confidence: float = CONFIDENCE
) -> NDArray[np.float64]:
    """Bounds `[2,...]` of an interval, from the estimates `[R,...]` of R bootstrap resamples of the clusters."""
    tail = tail_probability(clusters, confidence)
    bounds: NDArray[np.float64] = np.quantile(estimates, [tail, 1 - tail], axis=0)
    return bounds


def drawn_counts(
    clusters: int, resamples: int, generator: np.random.Generator, *, at_once: int
) -> Iterator[NDArray[np.int64]]:
    """How often each cluster is drawn, with replacement: `[R,clusters]`, R at most `at_once`, `resamples` in all."""
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=size)


def clustered_quantiles(
    clusters: Sequence[NDArray[np.float64]],
    quantiles: Sequence[float],
    *,
    resamples: int,
    generator: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> list[Interval]:
    """Quantiles of all values together, with intervals from resampling whole clusters.

    Args:
        clusters: the values of each cluster, `[M_i]` float64; none may be empty.
        quantiles: wanted quantiles, in [0, 1].
        resamples: number of bootstrap resamples.
        generator: source of the resampling.
        confidence: of the two-sided intervals.

    Returns:
        One interval per quantile. The value is `numpy.quantile` of the pooled values: no value is left out or weighted.

    Raises:
        ValueError: there is no cluster, or an empty one.
    """
    if not clusters or any(len(values) == 0 for values in clusters):
        raise ValueError("clusters: expected at least one, none of them empty")
    pooled = np.concatenate(clusters)
    estimates = np.quantile(pooled, quantiles)
    if len(clusters) == 1:
        return [Interval(float(value), math.nan, math.nan) for value in estimates]
    order = np.argsort(pooled, kind="stable")
    owners = np.repeat(np.arange(len(clusters)), [len(values) for values in clusters])[order]
    pooled = pooled[order]
    at_once = max(1, _CELLS_AT_ONCE // len(pooled))
    parts = [
        _resampled_quantiles(pooled, owners, counts, quantiles)
        for counts in drawn_counts(len(clusters), resamples, generator, at_once=at_once)
    ]
    low, high = expanded_percentiles(np.concatenate(parts), len(clusters), confidence)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(estimates, low, high, strict=True)]


def clustered_mean(
    values: NDArray[np.float64], *, resamples: int, generator: np.random.Generator, confidence: float = CONFIDENCE
) -> Interval:
    """Mean of one value per cluster, `[N]` float64, with an interval from resampling clusters."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    (counts,) = drawn_counts(len(values), resamples, generator, at_once=resamples)
    low, high = expanded_percentiles(counts @ values / len(values), len(values), confidence)
    return Interval(mean, float(low), float(high))


def equivalence(ratio: Interval, margin: float) -> Verdict:
    """Whether two latencies are equivalent: two one-sided tests at once, by where the interval of their ratio lies.

    Args:
        ratio: the ratio with its interval.
        margin: the ratio may lie from `1 - margin` to `1 + margin`.

    Returns:
        `pass` when the whole interval lies inside the margin, `fail` when it lies wholly outside, else `inconclusive`;
        `inconclusive` too without an interval.

    Example:
        >>> equivalence(Interval(1.001, 0.995, 1.007), margin=0.02)
        'pass'
        >>> equivalence(Interval(1.015, 1.001, 1.03), margin=0.02)
        'inconclusive'
        >>> equivalence(Interval(1.05, 1.03, 1.07), margin=0.02)
        'fail'
    """
    if not ratio.bounded:
        return "inconclusive"
    if 1 - margin <= ratio.low and ratio.high <= 1 + margin:
        return "pass"
    if ratio.high < 1 - margin or 1 + margin < ratio.low:
        return "fail"
    return "inconclusive"


def confidence_per_look(looks: int, confidence: float = CONFIDENCE) -> float:
    """Confidence of each interval so that `looks` of them hold together with `confidence` (Bonferroni).

    Who measures until the interval suits him looks several times and gets as many chances to be wrong.
    """
    return 1 - (1 - confidence) / looks


def _resampled_quantiles(
    values: NDArray[np.float64], owners: NDArray[np.int64], counts: NDArray[np.int64], quantiles: Sequence[float]
) -> NDArray[np.float64]:
    """Linear quantiles `[R,Q]` of each resample, from sorted values `[T]`, their clusters `[T]` and counts `[R,N]`."""
    ranks = np.cumsum(counts.astype(np.int32)[:, owners], axis=1)
    last = ranks[:, -1] - 1
    columns = []
    for quantile in quantiles:
        position = quantile * last
        lower = np.floor(position).astype(np.int32)
        upper = np.minimum(lower + 1, last)
        below = values[np.argmax(ranks > lower[:, None], axis=1)]
        above = values[np.argmax(ranks > upper[:, None], axis=1)]
        columns.append(below + (above - below) * (position - lower))
    return np.stack(columns, axis=1)
