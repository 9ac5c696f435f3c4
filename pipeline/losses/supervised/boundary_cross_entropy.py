"""Cross entropy that weighs pixels near the boundaries of classes more.

Ronneberger et al., "U-Net", MICCAI 2015, arXiv 1505.04597, section 3 weighs pixels by 1 + w0 exp(-d^2 / (2 sigma^2)) of
their distance to the borders of cells; here d is the distance to the nearest pixel that touches another class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.losses.shared.boundary import squared_distance_within
from pipeline.losses.supervised.pixel_mean import pixel_weights, weighted_mean
from pipeline.losses.supervised.term import LabelledLogits, SupervisedConfig, SupervisedTerm
from serving.contract.schema import Require

_REACH_IN_SIGMAS = 3  # further away a pixel counts as any other: exp(-9/2) is 1 %


@dataclass(frozen=True)
class BoundaryCrossEntropyConfig(SupervisedConfig):
    """Settings of the boundary-weighted cross entropy.

    Attributes:
        boundary_weight: w0, what a pixel on a boundary weighs more than one far from it.
        sigma: width of the band in pixels of the labels.
    """

    boundary_weight: float = 4.0
    sigma: float = 2.0

    def check(self, require: Require) -> None:
        """See `SupervisedConfig.check`."""
        super().check(require)
        require(self.boundary_weight >= 0, f"boundary_weight: expected at least 0, got {self.boundary_weight}")
        require(0 < self.sigma <= 32, f"sigma: expected in (0, 32], got {self.sigma}")


class BoundaryCrossEntropy(SupervisedTerm):
    """Cross entropy averaged with the weights 1 + w0 exp(-d^2 / (2 sigma^2)), times the class weights if any."""

    Config: ClassVar[type[BoundaryCrossEntropyConfig]] = BoundaryCrossEntropyConfig
    config: BoundaryCrossEntropyConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        sigma = self.config.sigma
        reach = math.ceil(_REACH_IN_SIGMAS * sigma)
        squared = squared_distance_within(touches_another_class(batch.labels, batch.labelled), reach=reach)
        near = (squared / (-2 * sigma**2)).exp_().masked_fill_(squared > reach**2, 0)
        weights = pixel_weights(batch, self.supervision.class_weights)
        return weighted_mean(-batch.log_likelihoods, weights * (1 + self.config.boundary_weight * near))


def touches_another_class(labels: Tensor, labelled: Tensor) -> Tensor:
    """Whether a pixel has one of another class among its 4 neighbours; unlabelled pixels are of no class.

    Args:
        labels: `[B,H,W]` int64.
        labelled: `[B,H,W]` bool.

    Returns:
        `[B,H,W]` bool.
    """
    touches = torch.zeros_like(labelled)
    for axis in (1, 2):
        length = labels.shape[axis] - 1
        here, next_ = (slice(None),) * axis + (slice(0, length),), (slice(None),) * axis + (slice(1, None),)
        differs = (labels[here] != labels[next_]) & labelled[here] & labelled[next_]
        touches[here] |= differs
        touches[next_] |= differs
    return touches
