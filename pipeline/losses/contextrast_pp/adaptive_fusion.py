"""The learnable fusion of class anchors of two layers (Contextrast++: Sung et al. 2026, arXiv 2608.22679)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """Self-attention over channels: each channel attends to those that tell classes apart as it does.

    A channel's token is its value in every class's anchor, so that absent classes (rows of 0) weigh nothing and one
    `D x D` map serves all classes (the channel attention of Fu et al. 2019, with cosine similarities). The residual
    branch starts at 0: an untrained module changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        self.strength = nn.Parameter(torch.tensor(0.0))

    def forward(self, anchors: Tensor) -> Tensor:
        """`[C,D]` -> `[C,D]`."""
        tokens = F.normalize(anchors, dim=0)
        attention = (self.sharpness * (tokens.T @ tokens)).softmax(dim=1)
        return anchors + self.strength * (anchors @ attention.T)


class AdaptiveFusion(nn.Module):
    """Fuses a layer's class anchors with the deepest layer's.

    Both are refined by channel attention; an MLP on their concatenation corrects their fixed mixture. Its last layer
    starts at 0, so that training starts from the fixed fusion of Contextrast and departs from it as far as it helps.

    Args:
        dim: D of the anchors.
        local_weight: share of the layer's own anchor in the mixture.
    """

    def __init__(self, dim: int, local_weight: float) -> None:
        super().__init__()
        self.local_weight = local_weight
        self.local_attention = ChannelAttention()
        self.global_attention = ChannelAttention()
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), last)

    def forward(self, local: Tensor, deepest: Tensor) -> Tensor:
        """Fuse `[C,D]` with `[C,D]` into `[C,D]`, not normalised."""
        local, deepest = self.local_attention(local), self.global_attention(deepest)
        mixture = self.local_weight * local + (1 - self.local_weight) * deepest
        correction: Tensor = self.mlp(torch.cat([local, deepest], dim=1))
        return mixture + correction
