"""Reading single pixels of an embedding map, with a backward pass that fills the map's gradient once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.models.network.head import Unprojected


def gather_pixels(embeddings: Tensor, image: Tensor, pixel: Tensor) -> Tensor:
    """Embeddings at distinct pixels.

    One indexing operation forward; backward one zero-filled map and one write into it. PyTorch's own backward of an
    index adds up duplicates, one element after the other; there are none here.

    Args:
        embeddings: `[B,D,h,w]`, contiguous or channels_last (neither is copied).
        image: `[N]` int64.
        pixel: `[N]` int64, flat index y * w + x; no (image, pixel) twice.

    Returns:
        `[N,D]` of the same dtype.
    """
    rows: Tensor = _GatherPixels.apply(embeddings, image, pixel)  # type: ignore[no-untyped-call]
    return rows


def embeddings_at(embeddings: Tensor | Unprojected, image: Tensor, pixel: Tensor) -> Tensor:
    """`gather_pixels`, also of embeddings that are not projected yet: these are projected there alone."""
    if isinstance(embeddings, Tensor):
        return gather_pixels(embeddings, image, pixel)
    return embeddings.of(gather_pixels(embeddings.hidden, image, pixel))


def embedding_map(embeddings: Tensor | Unprojected) -> Tensor:
    """`[B,D,h,w]`, projected everywhere where that has not happened yet."""
    return embeddings if isinstance(embeddings, Tensor) else embeddings.everywhere()


class _GatherPixels(Function):
    @staticmethod
    def forward(embeddings: Tensor, image: Tensor, pixel: Tensor) -> Tensor:
        return embeddings.flatten(2)[image, :, pixel]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        embeddings, image, pixel = inputs
        ctx.save_for_backward(image, pixel)
        ctx.shape = embeddings.shape
        # the gradient in the layout of the map, so that nothing upstream has to convert it
        channels_last = embeddings.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if channels_last else torch.contiguous_format

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows_gradient: Tensor) -> tuple[Tensor, None, None]:
        image, pixel = ctx.saved_tensors
        gradient = torch.empty(
            ctx.shape, dtype=rows_gradient.dtype, device=rows_gradient.device, memory_format=ctx.layout
        ).zero_()
        gradient.flatten(2)[image, :, pixel] = rows_gradient
        return gradient, None, None
