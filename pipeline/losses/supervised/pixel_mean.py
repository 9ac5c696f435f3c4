"""The mean over pixels that the variants of the cross entropy share."""

from __future__ import annotations

from torch import Tensor

from pipeline.losses.shared.distributed import sum_over_ranks
from pipeline.losses.supervised.term import LabelledLogits


def pixel_weights(batch: LabelledLogits, class_weights: Tensor | None) -> Tensor:
    """`[B,H,W]` float: the weight of each pixel's class, 1 without class weights; 0 where the pixel does not count."""
    labelled = batch.labelled.to(batch.log_probabilities.dtype)
    return labelled if class_weights is None else labelled * class_weights[batch.class_index]


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(weights * values) / sum(weights) over all ranks, an exact, differentiable 0 where all weights are 0.

    Args:
        values: `[B,H,W]` float, finite.
        weights: `[B,H,W]` float, at least 0; no gradient.
    """
    total = sum_over_ranks(weights.sum())
    return sum_over_ranks((weights * values).sum()) / total.where(total > 0, 1)
