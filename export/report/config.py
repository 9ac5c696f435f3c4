"""Settings of the stage `gate`: what must hold for the run to succeed."""

from __future__ import annotations

from dataclasses import dataclass, field

from export.targets.limits import with_defaults
from serving.contract.schema import Require


@dataclass(frozen=True)
class GateConfig:
    """Settings of the stage `gate`.

    Attributes:
        required: targets that may not be skipped (on the deployed method; elsewhere where they are built).
        max_miou_drop_points: precision -> largest allowed drop of mIoU against PyTorch, in percentage points.
        max_method_drop_points: largest allowed drop of a method's mIoU against the baseline's, in percentage points;
            None to report it only.
        accepted_warnings: kinds of prepare's warnings (what stands before the colon) that are listed and do not fail
            the run; every other kind does. By default those that are facts of the data and no doubt of how it is read.
        allow_inconclusive: an undecided latency comparison passes in the profile `quick`. In `release` it never does.
    """

    required: tuple[str, ...] = ("ort_fp32",)
    max_miou_drop_points: dict[str, float] = field(default_factory=dict)
    max_method_drop_points: float | None = 3.0
    accepted_warnings: tuple[str, ...] = ("absent class", "unseen class", "unlabelled")
    allow_inconclusive: bool = True

    def __post_init__(self) -> None:
        require = Require()
        limits = with_defaults("max_miou_drop_points", self.max_miou_drop_points)
        object.__setattr__(self, "max_miou_drop_points", limits)
        for precision, points in self.max_miou_drop_points.items():
            require(points >= 0, f"max_miou_drop_points.{precision}: expected at least 0, got {points}")
        require(
            self.max_method_drop_points is None or self.max_method_drop_points >= 0,
            f"max_method_drop_points: expected at least 0 or null, got {self.max_method_drop_points}",
        )
        require.done()
