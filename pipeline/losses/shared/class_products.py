"""Products of an embedding map with one vector per class, whose gradients by the map are written together, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Factors of a gradient by the map, `[B,C,D]` and `[B,C,h*w]`: their product over C is the gradient.
_Factors = list[tuple[Tensor, Tensor]]


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
    return torch.bmm(indicators, embeddings.flatten(2).transpose(1, 2))


class EmbeddingMap:
    """An embedding map that several products read.

    The gradient of each product by the map is itself a product, of few vectors with many weights. Left to autograd,
    each would fill a map of its own, to be added up. Here they are collected as factors, and when the last has come,
    one product over all of them writes the map's gradient, in the map's own layout.

    Args:
        embeddings: `[B,D,h,w]` float, contiguous or channels_last.
    """

    def __init__(self, embeddings: Tensor) -> None:
        self.values = embeddings.detach()
        self._factors: _Factors = []
        # What the products depend on in the map's stead. Autograd visits its source after all of them.
        self._token: Tensor = _Collected.apply(embeddings, self._factors)  # type: ignore[no-untyped-call]

    def class_sums(self, indicators: Tensor) -> Tensor:
        """`class_sums` of this map: `[B,C,h*w]` -> `[B,C,D]`."""
        sums: Tensor = _ClassSums.apply(self._token, self.values, indicators, self._factors)  # type: ignore[no-untyped-call]
        return sums

    def class_similarities(self, vectors: Tensor) -> Tensor:
        """Inner product of every class's vector with every pixel's embedding.

        Args:
            vectors: `[C,D]` of the map's dtype.

        Returns:
            `[C,B*h*w]`, pixels in row-major order.
        """
        products: Tensor = _ClassSimilarities.apply(self._token, self.values, vectors, self._factors)  # type: ignore[no-untyped-call]
        return products


class _Collected(Function):
    """Stands for the map: forward nothing, backward the sum of the collected factors' products."""

    @staticmethod
    def forward(embeddings: Tensor, factors: _Factors) -> Tensor:
        return embeddings.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, _Factors], output: Tensor) -> None:
        embeddings, ctx.factors = inputs
        ctx.shape, ctx.dtype = embeddings.shape, embeddings.dtype
        channels_last = embeddings.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if channels_last else torch.contiguous_format

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token_gradient: Tensor) -> tuple[Tensor, None]:
        result = torch.empty(ctx.shape, dtype=ctx.dtype, device=token_gradient.device, memory_format=ctx.layout)
        if not ctx.factors:
            return result.zero_(), None
        vectors = torch.cat([factor for factor, _ in ctx.factors], dim=1)
        weights = torch.cat([factor for _, factor in ctx.factors], dim=1)
        ctx.factors.clear()
        if ctx.layout is torch.channels_last:
            torch.bmm(weights.transpose(1, 2), vectors, out=result.flatten(2).transpose(1, 2))
        else:
            torch.bmm(vectors.transpose(1, 2), weights, out=result.flatten(2))
        return result, None


class _ClassSums(Function):
    @staticmethod
    def forward(token: Tensor, values: Tensor, indicators: Tensor, factors: _Factors) -> Tensor:
        return class_sums(values, indicators)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, _Factors], output: Tensor) -> None:
        token, _, indicators, ctx.factors = inputs
        ctx.save_for_backward(token, indicators)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        token, indicators = ctx.saved_tensors
        ctx.factors.append((gradient, indicators))
        return torch.zeros_like(token), None, None, None


class _ClassSimilarities(Function):
    @staticmethod
    def forward(token: Tensor, values: Tensor, vectors: Tensor, factors: _Factors) -> Tensor:
        images, _, height, width = values.shape
        products = vectors.new_empty(len(vectors), images, height * width)
        torch.bmm(vectors.expand(images, -1, -1), values.flatten(2), out=products.transpose(0, 1))
        return products.flatten(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, _Factors], output: Tensor) -> None:
        token, values, vectors, ctx.factors = inputs
        ctx.save_for_backward(token, values, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        token, values, vectors = ctx.saved_tensors
        images = len(values)
        by_image = gradient.view(len(vectors), images, -1).transpose(0, 1)  # [B,C,h*w]
        of_vectors = None
        if ctx.needs_input_grad[2]:
            of_vectors = torch.bmm(by_image, values.flatten(2).transpose(1, 2)).sum(0)
        if ctx.needs_input_grad[0]:
            ctx.factors.append((vectors.expand(images, -1, -1), by_image))
        return torch.zeros_like(token), None, of_vectors, None
