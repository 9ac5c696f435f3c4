"""The segmentation cross entropy that every method trains with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import sum_over_ranks
from pipeline.losses.shared.likelihood import negative_log_likelihood
from pipeline.losses.supervised.term import (
    LabelledLogits,
    SupervisedConfig,
    SupervisedTerm,
    Supervision,
    log_probabilities_at,
)
from pipeline.models.network.head import Logits


@dataclass(frozen=True)
class CrossEntropyTermConfig(SupervisedConfig):
    """The cross entropy has no settings but its weight."""


class CrossEntropyTerm(SupervisedTerm):
    """Cross entropy of the main logits, upsampled to the labels.

    The mean is over labelled pixels (weighted by the class weights where there are any).
    """

    Config: ClassVar[type[CrossEntropyTermConfig]] = CrossEntropyTermConfig

    def __call__(self, batch: LabelledLogits) -> Tensor:
        """See `SupervisedTerm.__call__`."""
        return _mean(batch, [batch.log_probabilities], self.supervision)


def auxiliary_cross_entropy(batch: LabelledLogits, supervision: Supervision) -> Tensor:
    """The sum of the auxiliary classifiers' cross entropies, each as `CrossEntropyTerm` has the main one's.

    Args:
        batch: with auxiliary logits, at least one.
        supervision: whose class weights count; its `auxiliary_weight` does not.

    Returns:
        Scalar; an exact, differentiable 0 when every pixel is ignored.
    """
    return _mean(batch, [log_probabilities_at(logits, batch.labels) for logits in batch.logits.auxiliary], supervision)


def _mean(batch: LabelledLogits, log_probabilities: Sequence[Tensor], supervision: Supervision) -> Tensor:
    weights, ignore_index = supervision.class_weights, supervision.ignore_index
    if weights is None:
        normaliser = batch.labelled.sum()
    else:
        padded = torch.cat([weights, weights.new_zeros(1)])
        normaliser = padded[batch.labels.where(batch.labelled, len(weights))].sum()
    # Without a labelled pixel the sum is 0 whatever it is divided by; any other normaliser stays as it is.
    normaliser = sum_over_ranks(normaliser)
    normaliser = normaliser.where(normaliser > 0, 1)
    (first, *others) = [
        negative_log_likelihood(each, batch.labels, weight=weights, ignore_index=ignore_index)
        for each in log_probabilities
    ]
    return sum_over_ranks(sum(others, first)) / normaliser


def segmentation_loss(
    logits: Logits,
    labels: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    auxiliary_weight: float = 0.4,
) -> Tensor:
    """The cross entropy of one batch, auxiliary classifiers included, whatever autocast says.

    Args:
        logits: main `[B,C,h,w]` and auxiliary, each at its own resolution.
        labels: `[B,H,W]` int64.
        ignore_index: label that counts nowhere.
        class_weights: `[C]` float, or None for equal weights.
        auxiliary_weight: factor of every auxiliary classifier's cross entropy.

    Returns:
        Scalar, float32 or wider; an exact, differentiable 0 when every pixel is ignored.
    """
    supervision = Supervision(ignore_index, class_weights, auxiliary_weight)
    with torch.autocast(labels.device.type, enabled=False):
        batch = LabelledLogits(logits, labels, ignore_index)
        loss = CrossEntropyTerm(CrossEntropyTermConfig(), supervision)(batch)
        return loss + auxiliary_weight * auxiliary_cross_entropy(batch, supervision) if logits.auxiliary else loss
