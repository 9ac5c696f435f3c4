"""Settings of the stage `benchmark`: how long, how often and on what latency is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from serving.contract.schema import Require

MLPERF_MIN_SECONDS = 10.0
MLPERF_MIN_QUERIES = 100
MIN_PAIRS = 8


@dataclass(frozen=True)
class ProfileConfig(ABC):
    """How thorough one profile measures.

    Attributes:
        sessions: fresh sessions per target. Two sessions of one file differ for their whole life by up to 2 % (where
            they landed in memory), so that more queries in one session cannot replace more sessions.
        min_seconds: measured time per target, over all its sessions, warm-up not counted.
        min_queries: measured queries per target, over all its sessions.
        max_seconds: a slow target stops here even short of `min_queries`, and is labelled so; None for no bound.
        pairs: fresh session pairs (baseline beside method) per comparison.
        max_pairs: while a comparison is undecided the number of pairs doubles, up to this bound.
        pair_seconds: measured time per pair.
        min_blocks: ABBA blocks per pair, however long they take.
        throughput_seconds: measured time per batch size.
        warm_up_seconds: a session that has not settled by then is measured all the same, and labelled.
    """

    sessions: int = 4
    min_seconds: float = 1.0
    min_queries: int = 100
    max_seconds: float | None = 20.0
    pairs: int = 8
    max_pairs: int = 8
    pair_seconds: float = 0.75
    min_blocks: int = 8
    throughput_seconds: float = 0.5
    warm_up_seconds: float = 1.0

    def __post_init__(self) -> None:
        require = Require()
        require(self.sessions >= 2, f"sessions: expected at least 2 (one has no interval), got {self.sessions}")
        require(self.min_seconds > 0, f"min_seconds: expected above 0, got {self.min_seconds}")
        require(self.min_queries >= 1, f"min_queries: expected at least 1, got {self.min_queries}")
        require(
            self.max_seconds is None or self.max_seconds >= self.min_seconds,
            f"max_seconds: expected at least min_seconds {self.min_seconds} or null, got {self.max_seconds}",
        )
        require(self.pairs >= MIN_PAIRS, f"pairs: expected at least {MIN_PAIRS}, got {self.pairs}")
        require(self.max_pairs >= self.pairs, f"max_pairs: expected at least pairs {self.pairs}, got {self.max_pairs}")
        require(self.pair_seconds > 0, f"pair_seconds: expected above 0, got {self.pair_seconds}")
        require(self.min_blocks >= 1, f"min_blocks: expected at least 1, got {self.min_blocks}")
        require(self.throughput_seconds > 0, f"throughput_seconds: expected above 0, got {self.throughput_seconds}")
        require(self.warm_up_seconds >= 0, f"warm_up_seconds: expected at least 0, got {self.warm_up_seconds}")
        self.require_minima(require)
        require.done()

    @abstractmethod
    def require_minima(self, require: Require) -> None:
        """Note what this profile must not fall below."""

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of pairs after which the comparison is judged: `pairs`, doubled until `max_pairs`."""
        looks = [self.pairs]
        while looks[-1] < self.max_pairs:
            looks.append(min(2 * looks[-1], self.max_pairs))
        return tuple(looks)


@dataclass(frozen=True)
class QuickProfileConfig(ProfileConfig):
    """Brief; its numbers are labelled `quick` wherever they are shown, and it may end undecided."""

    def require_minima(self, require: Require) -> None:
        """See `ProfileConfig`: it has none of its own."""


@dataclass(frozen=True)
class ReleaseProfileConfig(ProfileConfig):
    """The full minima (those of MLPerf's single-stream scenario); pairs are added until the comparison is decided."""

    sessions: int = 8
    min_seconds: float = MLPERF_MIN_SECONDS
    max_seconds: float | None = None
    pairs: int = 16
    max_pairs: int = 128
    pair_seconds: float = 2.0
    min_blocks: int = 25
    throughput_seconds: float = 2.0
    warm_up_seconds: float = 5.0

    def require_minima(self, require: Require) -> None:
        """See `ProfileConfig`."""
        require(
            self.min_seconds >= MLPERF_MIN_SECONDS,
            f"min_seconds: a release measures at least {MLPERF_MIN_SECONDS:g} s per target, got {self.min_seconds}",
        )
        require(
            self.min_queries >= MLPERF_MIN_QUERIES,
            f"min_queries: a release measures at least {MLPERF_MIN_QUERIES} queries per target, got {self.min_queries}",
        )
        require(
            self.max_seconds is None,
            f"max_seconds: a release is never cut short; expected null, got {self.max_seconds}",
        )


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the stage `benchmark`.

    Attributes:
        input_size: `(height, width)` of the measured image; None for the size of the validation images after the
            network's own resize and padding.
        batch_sizes: batch sizes for throughput; latency is always that of one image.
        images: distinct validation images that the queries cycle through.
        optimization_levels: graph optimisation levels of ONNX Runtime that are timed beside the one that a target runs
            at; none: they are not compared.
        seed: of every random order (sessions, blocks, placement).
        quick: used with `profile: quick`.
        release: used with `profile: release`.
    """

    input_size: tuple[int, int] | None = None
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    images: int = 8
    optimization_levels: tuple[Literal["basic", "extended", "layout", "all"], ...] = (
        *("basic", "extended", "layout"),
        "all",
    )
    seed: int = 0
    quick: QuickProfileConfig = field(default_factory=QuickProfileConfig)
    release: ReleaseProfileConfig = field(default_factory=ReleaseProfileConfig)

    def __post_init__(self) -> None:
        require = Require()
        require(
            self.input_size is None or min(self.input_size) >= 1,
            f"input_size: expected a height and a width of at least 1, got {self.input_size}",
        )
        require(len(self.batch_sizes) > 0, "batch_sizes: expected at least one batch size, got none")
        require(
            all(size >= 1 for size in self.batch_sizes) and len(set(self.batch_sizes)) == len(self.batch_sizes),
            f"batch_sizes: expected distinct numbers of at least 1, got {list(self.batch_sizes)}",
        )
        require(self.images >= 1, f"images: expected at least 1, got {self.images}")
        require(self.seed >= 0, f"seed: expected at least 0, got {self.seed}")
        require.done()

    def profile(self, name: str) -> ProfileConfig:
        """The settings of the profile `name`, `quick` or `release`."""
        return self.release if name == "release" else self.quick


@dataclass(frozen=True)
class CertifyConfig:
    """Settings of the stage `certify`.

    Attributes:
        baseline: the method without contrast that every other method is compared with.
        target: the target whose engines are compared; every branch must have it.
        margin: two latencies are equivalent when their ratio lies within `1 - margin` and `1 + margin`.
        resamples: bootstrap resamples of every interval.
        seed: of the bootstrap.
    """

    baseline: str = "cross_entropy"
    target: str = "ort_fp32"
    margin: float = 0.02
    resamples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        require = Require()
        require(0 < self.margin < 1, f"margin: expected between 0 and 1, got {self.margin}")
        require(self.resamples >= 1000, f"resamples: expected at least 1000, got {self.resamples}")
        require(self.seed >= 0, f"seed: expected at least 0, got {self.seed}")
        require.done()
