"""InfoNCE against a large bank whose keys are stored by class, one tile of the bank at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.losses.shared.row_contrast import softplus

# Similarities of one tile: on a CPU they stay in cache, elsewhere they are enough to fill the device.
_CPU_TILE_BYTES = 2 * 2**20
_TILE_BYTES = 64 * 2**20


def info_nce_by_class(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    valid: Tensor,
    *,
    temperature: float,
    base_temperature: float,
    most_per_class: int | None = None,
    tile_bytes: int | None = None,
) -> Tensor:
    """The value and gradient of `info_nce` against the valid keys, at little more than the cost of two matrix products.

    The similarities of one tile of slots are formed, used and overwritten. Negatives need one visit: their logsumexp
    and the sum of keys weighted by it are carried along under a running maximum. The similarities to positives (one in
    C) are kept as `[N,S]`, since their terms need the finished logsumexp; as every slot holds one key per class,
    picking them out is one gather and their gradient one batched product over classes.

    Args:
        anchors: `[N,D]` float, unit norm over D.
        anchor_labels: `[N]` int64 in [0,C).
        keys: `[S,C,D]` float, unit norm over D: S slots, each with room for one key of every class. No gradient.
        valid: `[S,C]` bool, whether there is a key.
        temperature: tau, above 0.
        base_temperature: tau_base, above 0.
        most_per_class: a bound on the anchors of any one class, where one is known without asking the device (it saves
            work); None for N.
        tile_bytes: size of one tile's similarities; None for one that suits the device.

    Returns:
        Scalar, float32 (float64 for float64 anchors); an exact 0, with a gradient, when no anchor has a positive.
    """
    if tile_bytes is None:
        tile_bytes = _CPU_TILE_BYTES if anchors.device.type == "cpu" else _TILE_BYTES
    settings = _Settings(temperature, base_temperature, min(len(anchors), most_per_class or len(anchors)), tile_bytes)
    anchors = anchors.to(torch.promote_types(anchors.dtype, torch.float32))
    with torch.autocast(anchors.device.type, enabled=False):
        outputs = _InfoNCEByClass.apply(anchors, anchor_labels, keys, valid, settings)  # type: ignore[no-untyped-call]
    loss: Tensor = outputs[0]
    return loss


class _Settings(NamedTuple):
    temperature: float
    base_temperature: float
    most_per_class: int
    tile_bytes: int


class _Sweep(NamedTuple):
    """What one visit of all keys leaves behind."""

    logsumexp: Tensor  # [N,1] over the negatives; -inf without any
    negative_mean: Tensor  # [N,D] mean of the negatives weighted by their softmax; 0 without any
    positives: Tensor  # [N+1,S] similarities to the keys of the anchor's class, -inf where there is none; last row 0


class _InfoNCEByClass(Function):
    """Loss and gradient in one sweep of the keys; the backward pass only scales the gradient."""

    @staticmethod
    def forward(
        anchors: Tensor, anchor_labels: Tensor, keys: Tensor, valid: Tensor, settings: _Settings
    ) -> tuple[Tensor, Tensor]:
        if not len(anchors) or not len(keys):
            return anchors.new_zeros(()), torch.zeros_like(anchors)
        sweep = _sweep(anchors / settings.temperature, anchor_labels, keys, valid, settings)
        pull = sweep.positives[: len(anchors)]
        count = valid.sum(0)[anchor_labels, None]
        share = 1 / count.clamp(min=1).to(anchors.dtype)
        against = (sweep.logsumexp - pull).masked_fill_(pull == -torch.inf, -torch.inf)  # S - L, see contrast_rows
        total = softplus(against).mul_(share).sum()
        torch.sigmoid(against, out=pull).mul_(share)
        gradient = pull.sum(dim=1, keepdim=True) * sweep.negative_mean
        gradient -= _positive_sums(sweep.positives, anchor_labels, keys, settings)
        scale = 1 / ((count > 0).sum().clamp(min=1).to(anchors.dtype) * settings.base_temperature)
        return total * scale * settings.temperature, gradient.mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient, None, None, None, None


def _sweep(scaled: Tensor, labels: Tensor, keys: Tensor, valid: Tensor, settings: _Settings) -> _Sweep:
    """Visit every key once. `scaled [N,D]`: anchors divided by the temperature."""
    anchors, (slots, classes, _) = len(scaled), keys.shape
    per_tile = max(1, min(slots, settings.tile_bytes // (anchors * classes * scaled.dtype.itemsize)))
    buffer = scaled.new_empty(anchors * per_tile * classes)
    own_class = labels[:, None, None].expand(anchors, per_tile, 1)
    barred = torch.zeros_like(valid, dtype=scaled.dtype).masked_fill_(~valid, -torch.inf)
    maximum = scaled.new_full((anchors, 1), torch.finfo(scaled.dtype).min)
    partition = scaled.new_zeros(anchors, 1)
    weighted = torch.zeros_like(scaled)
    positives = scaled.new_zeros(anchors + 1, slots)
    for start in range(0, slots, per_tile):
        stop = min(start + per_tile, slots)
        rows = keys[start:stop].flatten(0, 1).to(scaled.dtype)
        tile = buffer[: anchors * len(rows)].view(anchors, -1)
        torch.mm(scaled, rows.T, out=tile)
        by_class = tile.view(anchors, stop - start, classes)
        by_class += barred[start:stop]
        own = own_class[:, : stop - start]
        positives[:-1, start:stop] = by_class.gather(2, own).squeeze(2)
        by_class.scatter_(2, own, -torch.inf)
        raised = torch.maximum(maximum, tile.amax(dim=1, keepdim=True))
        tile.sub_(raised).exp_()
        shrink = (maximum - raised).exp_()
        partition.mul_(shrink).add_(tile.sum(dim=1, keepdim=True))
        weighted.mul_(shrink).addmm_(tile, rows)
        maximum = raised
    mean = weighted.div_(partition.where(partition > 0, 1))
    return _Sweep(maximum + partition.log(), mean, positives)


def _positive_sums(weights: Tensor, labels: Tensor, keys: Tensor, settings: _Settings) -> Tensor:
    """Sum of each anchor's positives under `weights [N+1,S]` (last row 0): `[N,D]`.

    Anchors are laid out class by class, each class padded to one length by the last, empty row of the weights, so that
    one batched product serves all classes.
    """
    anchors, (slots, classes, dim), room = len(labels), keys.shape, settings.most_per_class
    members = labels[:, None] == torch.arange(classes, device=labels.device)
    place = labels * room + (members.cumsum(0) - 1).gather(1, labels[:, None]).squeeze(1)
    padded = torch.full((classes * room,), anchors, device=labels.device)
    padded[place] = torch.arange(anchors, device=labels.device)
    sums = weights.new_zeros(classes, room, dim)
    per_tile = max(1, settings.tile_bytes // (classes * room * weights.dtype.itemsize))
    for start in range(0, slots, per_tile):
        tile = slice(start, min(start + per_tile, slots))
        part = weights[:, tile].index_select(0, padded).view(classes, room, -1)
        sums.baddbmm_(part, keys[tile].to(weights.dtype).transpose(0, 1))
    return sums.flatten(0, 1)[place]
