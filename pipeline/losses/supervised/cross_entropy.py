"""The segmentation cross entropy that every method trains with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.network.head import TraineeOutput


def segmentation_loss(
    output: TraineeOutput,
    labels: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    auxiliary_weight: float = 0.4,
) -> Tensor:
    """Cross entropy of the logits, upsampled to the labels, plus that of each auxiliary classifier.

    The mean is over labelled pixels (weighted by `class_weights` where given) and is an exact, differentiable 0 when
    every pixel is ignored.

    Args:
        output: logits `[B,C,h,w]` and auxiliary logits, each at its own resolution.
        labels: `[B,H,W]` int64.
        ignore_index: label that counts nowhere.
        class_weights: `[C]` float, or None for equal weights.
        auxiliary_weight: factor of every auxiliary classifier's cross entropy.

    Returns:
        Scalar, float32 or wider whatever autocast says.
    """
    with torch.autocast(labels.device.type, enabled=False):
        if class_weights is None:
            normaliser = (labels != ignore_index).sum()
        else:
            padded = torch.cat([class_weights, class_weights.new_zeros(1)])
            normaliser = padded[labels.where(labels != ignore_index, len(class_weights))].sum()
        # Without a labelled pixel the sum is 0 whatever it is divided by; any other normaliser stays as it is.
        normaliser = normaliser.where(normaliser > 0, 1)
        total = _cross_entropy_sum(output.logits, labels, ignore_index, class_weights)
        for logits in output.auxiliary_logits:
            total = total + auxiliary_weight * _cross_entropy_sum(logits, labels, ignore_index, class_weights)
        return total / normaliser


def _cross_entropy_sum(logits: Tensor, labels: Tensor, ignore_index: int, class_weights: Tensor | None) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, weight=class_weights, ignore_index=ignore_index, reduction="sum")
