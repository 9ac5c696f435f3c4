"""The negative log-likelihood of labels, also where only deterministic algorithms may run."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_log_likelihood(
    log_probabilities: Tensor, labels: Tensor, *, weight: Tensor | None = None, ignore_index: int
) -> Tensor:
    """The sum over pixels of `-weight[label] * log_probabilities[label]`.

    PyTorch's CUDA kernel for images adds up in an order that changes from run to run, and is an error under
    `torch.use_deterministic_algorithms`; its kernel for rows is neither, and takes a copy of the log-probabilities.

    Args:
        log_probabilities: `[B,C,H,W]` float.
        labels: `[B,H,W]` int64.
        weight: `[C]` float, or None for equal weights.
        ignore_index: label that counts nowhere.

    Returns:
        Scalar of the dtype of `log_probabilities`.
    """
    if log_probabilities.is_cuda and torch.are_deterministic_algorithms_enabled():
        log_probabilities, labels = as_rows(log_probabilities, labels)
    return F.nll_loss(log_probabilities, labels, weight=weight, ignore_index=ignore_index, reduction="sum")


def as_rows(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`[B,C,H,W]` and `[B,H,W]` as rows of pixels, `[B*H*W,C]` and `[B*H*W]`."""
    return values.permute(0, 2, 3, 1).reshape(-1, values.shape[1]), labels.reshape(-1)
