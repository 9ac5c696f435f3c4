"""Section `verify` of params.yaml: on what engines are compared with PyTorch, and how close is equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from export.targets.limits import with_defaults
from serving.contract.schema import Require


@dataclass(frozen=True)
class VerifyConfig:
    """Settings of the checks. How far mIoU may drop is the gate's (`gate.max_miou_drop_points`).

    Attributes:
        images: validation images whose logits and masks are compared pixel by pixel; accuracy uses the whole split.
        max_logit_error: precision -> largest allowed difference of a logit, relative to the largest logit; a
            precision that is not named has its default (`serving.contract.limits`). An engine that exceeds it
            may lose twice what PyTorch does on the same image in the same precision.
        max_disagreement: precision -> largest allowed share of pixels whose class differs on validation images.
        resamples: bootstrap resamples of the drop's interval.
        seed: of every random choice (synthetic images, bootstrap).
        max_side: sides of synthetic images are at most this many pixels.
    """

    images: int = 8
    max_logit_error: Mapping[str, float] = field(default_factory=dict)
    max_disagreement: Mapping[str, float] = field(default_factory=dict)
    resamples: int = 2000
    seed: int = 0
    max_side: int = 512

    def __post_init__(self) -> None:
        require = Require()
        require(self.images >= 1, f"images: expected at least 1, got {self.images}")
        for name in ("max_logit_error", "max_disagreement"):
            object.__setattr__(self, name, with_defaults(name, getattr(self, name)))
            for precision, value in getattr(self, name).items():
                require(value >= 0, f"{name}.{precision}: expected at least 0, got {value}")
        require(self.resamples >= 100, f"resamples: expected at least 100, got {self.resamples}")
        require(self.seed >= 0, f"seed: expected at least 0, got {self.seed}")
        require(self.max_side >= 64, f"max_side: expected at least 64, got {self.max_side}")
        require.done()
