"""InfoNCE over labelled anchors and keys, with the gradient formed in the forward pass."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.losses.shared.row_contrast import cache_rows, contrast_rows

# Similarities held at a time by one matrix product: large enough to run at full speed.
CHUNK_BYTES = 16 * 2**20


class Selected(NamedTuple):
    """Some keys of every anchor.

    Attributes:
        position: `[n,k]` int64, among the keys.
        chosen: `[n,k]` bool, whether the position counts; those that count are distinct within a row.
    """

    position: Tensor
    chosen: Tensor


class Selector(Protocol):
    """Chooses, for a chunk of anchors, which keys take part."""

    def __call__(self, similarities: Tensor, positives: Tensor, negatives: Tensor) -> Selected:
        """Select among the candidates.

        Args:
            similarities: `[n,M]` float, `a . k / temperature`.
            positives: `[n,M]` bool, keys of the anchor's class.
            negatives: `[n,M]` bool, keys of other classes.

        Returns:
            The selected keys; those that are no candidates are ignored.
        """


def info_nce(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor | None = None,
    key_labels: Tensor | None = None,
    *,
    temperature: float,
    base_temperature: float,
    selection: Tensor | Selector | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """Multi-positive InfoNCE with one positive per denominator (Wang et al. 2021, eq. 3).

    With L_rj = a_r . k_j / temperature, P(r) the keys of the anchor's class and N(r) those of the other classes,

        loss = temperature / base_temperature * mean over anchors r with P(r) not empty of
               mean over j in P(r) of [ logaddexp(L_rj, logsumexp over k in N(r) of L_rk) - L_rj ]

    Each anchor row is visited once: the gradient is formed beside the loss in chunks of rows, and only `[N,D]` (and
    `[M,D]` where keys need it) is kept for the backward pass. Computed in float32, or float64 if an input is, whatever
    autocast says. Differentiable once.

    Args:
        anchors: `[N,D]` float, unit norm over D.
        anchor_labels: `[N]` integers.
        keys: `[M,D]` float, unit norm over D; None contrasts the anchors with each other, each one left out of its
            own keys.
        key_labels: `[M]` integers; given exactly when `keys` is. A negative label marks a key that is no key at all.
        temperature: tau, above 0.
        base_temperature: tau_base, above 0.
        selection: which keys take part for each anchor: `[N,M]` bool, or a `Selector` asked chunk by chunk; None for
            all of them.
        chunk_bytes: size of the similarities held at a time (a selector's temporaries have that size too).

    Returns:
        Scalar; exactly 0, with a gradient, when no anchor has a positive, or no negative stands against any.

    Raises:
        ValueError: shapes do not fit together, or a temperature is not above 0.

    Example:
        >>> anchors = torch.eye(2)[[0, 0, 1, 1]]  # two classes at right angles
        >>> loss = info_nce(anchors, torch.tensor([0, 0, 1, 1]), temperature=0.1, base_temperature=0.1)
        >>> f"{loss:.1e}"  # log(exp(10) + 2 exp(0)) - 10, for each
        '9.1e-05'
        >>> f"{info_nce(anchors, torch.tensor([0, 1, 0, 1]), temperature=0.1, base_temperature=0.1):.1f}"
        '10.0'
    """
    _check(anchors, anchor_labels, keys, key_labels, selection)
    if not (temperature > 0 and base_temperature > 0):
        raise ValueError(f"temperatures: expected above 0, got {temperature} and {base_temperature}")
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    if keys is not None:
        dtype = torch.promote_types(keys.dtype, dtype)
        keys = keys.to(dtype)
    anchors = anchors.to(dtype)
    row_bytes = max(1, len(anchors if keys is None else keys)) * dtype.itemsize
    settings = _Settings(
        temperature=temperature,
        base_temperature=base_temperature,
        chunk_rows=max(1, chunk_bytes // row_bytes),
        cache_rows=cache_rows(anchors, row_bytes),
        anchor_gradient=torch.is_grad_enabled() and anchors.requires_grad,
        key_gradient=torch.is_grad_enabled() and keys is not None and keys.requires_grad,
    )
    with torch.autocast(anchors.device.type, enabled=False):
        outputs = _InfoNCE.apply(anchors, anchor_labels, keys, key_labels, selection, settings)  # type: ignore[no-untyped-call]
    loss: Tensor = outputs[0]
    return loss


class _Settings(NamedTuple):
    temperature: float
    base_temperature: float
    chunk_rows: int
    cache_rows: int
    anchor_gradient: bool
    key_gradient: bool


class _InfoNCE(Function):
    """Loss and gradients in one pass; the backward pass only scales what the forward pass has formed."""

    @staticmethod
    def forward(
        anchors: Tensor,
        anchor_labels: Tensor,
        keys: Tensor | None,
        key_labels: Tensor | None,
        selection: Tensor | Selector | None,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        own_keys = keys is None or key_labels is None
        keys, key_labels = (anchors, anchor_labels) if keys is None or key_labels is None else (keys, key_labels)
        scaled = anchors / settings.temperature
        anchor_gradient = torch.zeros_like(anchors) if settings.anchor_gradient else None
        key_gradient = torch.zeros_like(keys) if settings.key_gradient else None
        total, eligible = anchors.new_zeros(()), anchors.new_zeros(())
        is_key = key_labels >= 0
        for start in range(0, len(anchors), settings.chunk_rows):
            rows = slice(start, min(start + settings.chunk_rows, len(anchors)))
            similarities = scaled[rows] @ keys.T
            for first in range(start, rows.stop, settings.cache_rows):
                piece = slice(first, min(first + settings.cache_rows, rows.stop))
                negatives = anchor_labels[piece, None] != key_labels
                positives = ~negatives & is_key
                negatives &= is_key
                if own_keys:
                    positives.diagonal(first).fill_(False)
                part = similarities[first - start : piece.stop - start]
                if isinstance(selection, Tensor):
                    positives &= selection[piece]
                    negatives &= selection[piece]
                if selection is None or isinstance(selection, Tensor):
                    contrast = contrast_rows(part, positives, negatives)
                    part.copy_(contrast.gradient)
                else:
                    position, chosen = selection(part, positives, negatives)
                    positives = positives.gather(1, position) & chosen
                    negatives = negatives.gather(1, position) & chosen
                    contrast = contrast_rows(part.gather(1, position), positives, negatives)
                    # added up: a position that does not count has no gradient, but may be one that counts elsewhere
                    part.zero_().scatter_add_(1, position, contrast.gradient)
                total += contrast.loss.sum()
                eligible += contrast.eligible.sum()
            if own_keys and anchor_gradient is not None and len(similarities) == len(anchors):
                # each anchor is row and column: both roles in one product
                anchor_gradient.addmm_(similarities + similarities.T, keys)
            elif anchor_gradient is not None:
                anchor_gradient[rows] += similarities @ keys
                if own_keys:
                    anchor_gradient.addmm_(similarities.T, anchors[rows])
            if key_gradient is not None:
                key_gradient.addmm_(similarities.T, anchors[rows])
        # d L / d a = k / temperature cancels the temperature that the loss is multiplied by
        scale = 1 / (eligible.clamp(min=1) * settings.base_temperature)
        for gradient in (anchor_gradient, key_gradient):
            if gradient is not None:
                gradient *= scale
        return total * scale * settings.temperature, anchor_gradient, key_gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None, Tensor | None]) -> None:
        _, anchor_gradient, key_gradient = output
        ctx.mark_non_differentiable(*[gradient for gradient in (anchor_gradient, key_gradient) if gradient is not None])
        ctx.save_for_backward(anchor_gradient, key_gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        anchor_gradient, key_gradient = ctx.saved_tensors
        return (
            None if anchor_gradient is None else anchor_gradient * loss_gradient,
            None,
            None if key_gradient is None else key_gradient * loss_gradient,
            None,
            None,
            None,
        )


def _check(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor | None,
    key_labels: Tensor | None,
    selection: Tensor | Selector | None,
) -> None:
    if (keys is None) != (key_labels is None):
        raise ValueError("keys and key_labels: expected both or neither")
    keys = anchors if keys is None else keys
    key_labels = anchor_labels if key_labels is None else key_labels
    if anchors.ndim != 2 or keys.ndim != 2 or anchors.shape[1] != keys.shape[1]:
        raise ValueError(
            f"anchors and keys: expected [N,D] and [M,D], got {list(anchors.shape)} and {list(keys.shape)}"
        )
    for name, labels, rows in (("anchor_labels", anchor_labels, anchors), ("key_labels", key_labels, keys)):
        if labels.shape != rows.shape[:1]:
            raise ValueError(f"{name}: expected [{len(rows)}], one per row, got {list(labels.shape)}")
    if isinstance(selection, Tensor) and selection.shape != (len(anchors), len(keys)):
        raise ValueError(f"selection: expected [{len(anchors)},{len(keys)}], got {list(selection.shape)}")
