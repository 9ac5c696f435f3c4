"""Settings of the stage `certify`: what is compared with what, and how close is equal."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.schema import Require


@dataclass(frozen=True)
class CertifyConfig:
    """Settings of the stage `certify`.

    Attributes:
        baseline: the method without contrast that every other method of the matrix is compared with.
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
