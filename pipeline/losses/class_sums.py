"""Sums of embeddings over the pixels of each class."""

from __future__ import annotations

import torch
from torch import Tensor


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
    """Sum of the embeddings of each image's pixels of each class, as one matrix product per batch.

    Args:
        embeddings: `[B,D,h,w]` float.
        indicators: `[B,C,h*w]` of the same dtype.

    Returns:
        `[B,C,D]`.
    """
    return indicators @ embeddings.flatten(2).transpose(1, 2)
