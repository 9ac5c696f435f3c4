"""Products of an embedding map with one vector per class, in the map's own layout forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def class_indicators(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Membership of pixels in classes, as numbers to multiply with.

    Args:
        labels: `[B,h,w]` int64; what is not in [0, num_classes) belongs to no class.
        num_classes: number of classes C.
        dtype: of the result.

    Returns:
        `[B,C,h*w]`, 1 where the pixel is of the class, else 0.
    """
    flat = labels.flatten(1)
    flat = flat.where((flat >= 0) & (flat < num_classes), num_classes)
    members = torch.zeros(len(flat), num_classes + 1, flat.shape[1], dtype=dtype, device=labels.device)
    return members.scatter_(1, flat[:, None], 1)[:, :num_classes]


def class_sums(embeddings: Tensor, indicators: Tensor) -> Tensor:
    """Sum of the embeddings of each image's pixels of each class, as one batched product.

    Args:
        embeddings: `[B,D,h,w]` float, contiguous or channels_last.
        indicators: `[B,C,h*w]` of the same dtype.

    Returns:
        `[B,C,D]`.
    """
    sums: Tensor = _ClassSums.apply(embeddings, indicators)  # type: ignore[no-untyped-call]
    return sums


def class_similarities(vectors: Tensor, embeddings: Tensor) -> Tensor:
    """Inner product of every class's vector with every pixel's embedding.

    Args:
        vectors: `[C,D]` float.
        embeddings: `[B,D,h,w]` of the same dtype, contiguous or channels_last.

    Returns:
        `[C,B*h*w]`, pixels in row-major order.
    """
    similarities: Tensor = _ClassSimilarities.apply(vectors, embeddings)  # type: ignore[no-untyped-call]
    return similarities


class _ClassSums(Function):
    @staticmethod
    def forward(embeddings: Tensor, indicators: Tensor) -> Tensor:
        return torch.bmm(indicators, embeddings.flatten(2).transpose(1, 2))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        embeddings, indicators = inputs
        ctx.save_for_backward(indicators)
        ctx.shape, ctx.layout = embeddings.shape, _layout(embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (indicators,) = ctx.saved_tensors
        return _spread(gradient, indicators, ctx.shape, ctx.layout), None


class _ClassSimilarities(Function):
    @staticmethod
    def forward(vectors: Tensor, embeddings: Tensor) -> Tensor:
        images, _, height, width = embeddings.shape
        products = vectors.new_empty(len(vectors), images, height * width)
        torch.bmm(vectors.expand(images, -1, -1), embeddings.flatten(2), out=products.transpose(0, 1))
        return products.flatten(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, embeddings = ctx.saved_tensors
        images = len(embeddings)
        by_image = gradient.view(len(vectors), images, -1).transpose(0, 1)  # [B,C,h*w]
        of_vectors = of_embeddings = None
        if ctx.needs_input_grad[0]:
            of_vectors = torch.bmm(by_image, embeddings.flatten(2).transpose(1, 2)).sum(0)
        if ctx.needs_input_grad[1]:
            of_embeddings = _spread(vectors.expand(images, -1, -1), by_image, embeddings.shape, _layout(embeddings))
        return of_vectors, of_embeddings


def _layout(embeddings: Tensor) -> torch.memory_format:
    channels_last = embeddings.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _spread(vectors: Tensor, weights: Tensor, shape: torch.Size, layout: torch.memory_format) -> Tensor:
    """Each pixel's sum of class vectors `[B,C,D]` under its weights `[B,C,h*w]`: a map of `shape`, written once."""
    result = torch.empty(shape, dtype=vectors.dtype, device=vectors.device, memory_format=layout)
    if layout is torch.channels_last:
        torch.bmm(weights.transpose(1, 2), vectors, out=result.flatten(2).transpose(1, 2))
    else:
        torch.bmm(vectors.transpose(1, 2), weights, out=result.flatten(2))
    return result
