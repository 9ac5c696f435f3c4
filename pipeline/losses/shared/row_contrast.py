"""InfoNCE of given similarities: each row one anchor, each key positive, negative or neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.losses.shared.distributed import largest_over_ranks, sum_over_ranks

# On a CPU what follows the product goes through smaller pieces: they stay in the core's cache, and the allocator
# serves them from pages it already owns (a fresh page costs more than the arithmetic on it).
CACHE_BYTES = 2**20


def info_nce_of_similarities(similarities: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """InfoNCE where the keys of each anchor have roles of their own: a key may be positive, negative or neither.

        mean over rows with a positive of
        mean over its positives j of [ logaddexp(L_j, logsumexp over its negatives) - L_j ]

    The gradient is formed in the forward pass and is all that is kept. Differentiable once. In distributed training the
    anchors are the same on all ranks, and each has the keys of its own images.

    Args:
        similarities: `[n,M]` float32 or float64, divided by the temperature.
        positives: `[n,M]` bool.
        negatives: `[n,M]` bool, disjoint from `positives`.

    Returns:
        Scalar of the same dtype; an exact 0, with a gradient, when no row has a positive.
    """
    loss: Tensor = _InfoNCEOfSimilarities.apply(similarities, positives, negatives)[0]  # type: ignore[no-untyped-call]
    return sum_over_ranks(loss)


class _InfoNCEOfSimilarities(Function):
    @staticmethod
    def forward(similarities: Tensor, positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(similarities)
        total, eligible = similarities.new_zeros(()), similarities.new_zeros(())
        rows = cache_rows(similarities)
        for start in range(0, len(similarities), rows):
            piece = slice(start, start + rows)
            contrast = contrast_rows(similarities[piece], positives[piece], negatives[piece], of_all_ranks=True)
            total += contrast.loss.sum()
            eligible += contrast.eligible.sum()
            gradient[piece] = contrast.gradient
        eligible.clamp_(min=1)
        return total / eligible, gradient.div_(eligible)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None


class RowContrast(NamedTuple):
    """InfoNCE of some anchors.

    Attributes:
        loss: `[n]`, the anchor's mean over its positives; 0 where it has none. Of keys that are spread over the ranks,
            this rank's part of it.
        eligible: `[n]` bool, whether the anchor has a positive.
        gradient: `[n,M]`, d loss[r] / d similarities[r].
    """

    loss: Tensor
    eligible: Tensor
    gradient: Tensor


def contrast_rows(
    similarities: Tensor, positives: Tensor, negatives: Tensor, *, of_all_ranks: bool = False
) -> RowContrast:
    """The loss of each row and its gradient with respect to the similarities.

    With S = logsumexp over negatives, one positive's term is softplus(S - L_j): stable for every S, and an exact 0 for
    S = -inf (no negatives). Its derivatives: -sigmoid(S - L_j) by L_j, and sigmoid(S - L_j) softmax_k by L_k.

    Args:
        similarities: `[n,M]` float.
        positives: `[n,M]` bool.
        negatives: `[n,M]` bool, disjoint from `positives`.
        of_all_ranks: whether the keys are one part of those that the anchors have, on every rank another.
    """
    if not similarities.numel():
        nothing = similarities.sum(dim=1)
        return RowContrast(nothing, nothing > 0, torch.zeros_like(similarities))
    lowest = torch.finfo(similarities.dtype).min  # stands for the maximum of no negatives: exp(-inf - lowest) = 0
    gradient = similarities.where(negatives, -torch.inf)
    maximum = gradient.amax(dim=1, keepdim=True).clamp_(min=lowest)
    maximum = largest_over_ranks(maximum) if of_all_ranks else maximum
    gradient.sub_(maximum).exp_()
    total: Callable[[Tensor], Tensor] = sum_over_ranks if of_all_ranks else lambda own: own
    partition = total(gradient.sum(dim=1, keepdim=True))
    against = (maximum + partition.log()) - similarities  # S - L
    pull = positives.to(similarities.dtype)  # as numbers: a product is several times faster than a mask
    count = total(pull.sum(dim=1, keepdim=True))
    share = 1 / count.clamp(min=1)
    loss = softplus(against).mul_(pull).sum(dim=1) * share.squeeze(1)
    pull.mul_(against.sigmoid_()).mul_(share)
    push = total(pull.sum(dim=1, keepdim=True)) / partition.where(partition > 0, 1)
    return RowContrast(loss, count.squeeze(1) > 0, gradient.mul_(push).sub_(pull))


def cache_rows(rows: Tensor, row_bytes: int | None = None) -> int:
    """How many rows at a time stay in the cache of `rows`' device: all of them where there is no such cache."""
    if rows.device.type != "cpu":
        return max(1, len(rows))
    return max(1, CACHE_BYTES // max(1, rows[:1].nbytes if row_bytes is None else row_bytes))


def softplus(values: Tensor) -> Tensor:
    """log(1 + exp(x)), exact to the last digits of float64: above 40 the sum is x itself (the default stops at 20)."""
    return F.softplus(values, threshold=40)
