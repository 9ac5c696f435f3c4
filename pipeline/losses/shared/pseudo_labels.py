"""What a teacher's prediction is worth as labels, and the loss of another prediction held to it.

Confidence threshold and mean over all pixels as in Sohn et al., "FixMatch", NeurIPS 2020, arXiv 2001.07685, equation 4,
here of pixels; CutMix between unlabelled images: French et al., "Semi-supervised semantic segmentation needs strong,
varied perturbations", BMVC 2020, arXiv 1906.01916. Classes that an unreliable pixel is not: Wang et al.,
"Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels", CVPR 2022, arXiv 2203.03884, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import gather_batch, own_part, sum_over_ranks
from pipeline.losses.shared.likelihood import negative_log_likelihood
from pipeline.losses.shared.resolution import NO_CLASS, log_probabilities_at


@dataclass(frozen=True)
class PseudoLabels:
    """What a teacher says of a batch without labels.

    Attributes:
        classes: `[B,H,W]` int64, its class where it is confident, `NO_CLASS` elsewhere.
        inside: `[B,H,W]` bool, false on padding.
        unlikely: `[B,C,H,W]` bool, where it is not confident: the classes that the pixel is trusted not to be; None
            where nobody asked.
    """

    classes: Tensor
    inside: Tensor
    unlikely: Tensor | None = None

    def mixed(self, boxes: Tensor) -> PseudoLabels:
        """The same of a batch in which crop i shows crop i + 1 within `boxes [B,H,W]`, as `mix` makes it."""
        return PseudoLabels(
            mix(self.classes, boxes),
            mix(self.inside, boxes),
            None if self.unlikely is None else mix(self.unlikely, boxes[:, None]),
        )


def mix(values: Tensor, boxes: Tensor) -> Tensor:
    """`values [B,...]` with those of the next entry (of the first, for the last) where `boxes` is set.

    In distributed training the next entry is that of the global batch.
    """
    sent = values.to(torch.uint8) if values.dtype is torch.bool else values  # bool is no type to send
    return torch.where(boxes, own_part(gather_batch(sent).roll(-1, 0)).to(values.dtype), values)


@torch.no_grad()
def pseudo_labels(logits: Tensor, inside: Tensor, *, confidence: float, unlikely_rank: int | None) -> PseudoLabels:
    """The classes that a teacher is sure of.

    Args:
        logits: `[B,C,h,w]`, the teacher's, at its own resolution; brought to that of `inside` bilinearly.
        inside: `[B,H,W]` bool, false on padding, which has no class.
        confidence: least probability of the class.
        unlikely_rank: a pixel below it is trusted not to be a class that at least this many others are more probable
            than; None leaves them out.
    """
    log_probabilities = log_probabilities_at(logits, inside)
    best, classes = log_probabilities.max(dim=1)
    trusted = inside & (best.exp() >= confidence)
    unlikely = None
    if unlikely_rank is not None:
        order = log_probabilities.argsort(dim=1, descending=True, stable=True)
        beyond = torch.arange(order.shape[1], device=order.device) >= unlikely_rank
        unlikely = torch.zeros_like(order, dtype=torch.bool)
        unlikely.scatter_(1, order, beyond[None, :, None, None].expand_as(order))
        unlikely &= (inside & ~trusted)[:, None]
    return PseudoLabels(classes.where(trusted, NO_CLASS), inside, unlikely)


def pseudo_label_loss(logits: Tensor, target: PseudoLabels) -> Tensor:
    """Cross entropy by the teacher's classes, summed over the pixels it is sure of, divided by all inside the images.

    A batch of which little is certain so weighs little.

    Args:
        logits: `[B,C,h,w]` of the student, on its own view of the images; brought to the labels bilinearly.
        target: of the same views.

    Returns:
        Scalar, float32 or wider; an exact, differentiable 0 where nothing is certain, or without an image.
    """
    if not len(logits):
        return logits.sum()
    log_probabilities = log_probabilities_at(logits, target.classes)
    total = negative_log_likelihood(log_probabilities, target.classes, ignore_index=NO_CLASS)
    return sum_over_ranks(total) / sum_over_ranks(target.inside.sum()).clamp(min=1)
