"""Heads that only training has: projections to embeddings and auxiliary classifiers."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.models.network.head import Unprojected, normalised
from pipeline.models.network.layers import ConvNormAct, initialise, initialise_classifier


class ProjectionHead(nn.Module):
    """conv1x1 (C -> C), batch normalisation, ReLU, conv1x1 (C -> D), L2 normalisation over channels.

    As in Wang et al. 2021, section 3.2.
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.hidden = ConvNormAct(channels, channels)
        self.output = nn.Conv2d(channels, embedding_dim, 1)
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        """`[B,C,h,w]` -> unit-norm `[B,D,h,w]`, in at least float32: half precision would round the norm."""
        return normalised(self.output(self.hidden(features)))

    def unprojected(self, features: Tensor) -> Unprojected:
        """`[B,C,h,w]` -> the same embeddings, whose last two steps are left to who knows where they are wanted."""
        assert self.output.bias is not None
        return Unprojected(self.hidden(features), self.output.weight, self.output.bias)


class AuxiliaryHead(nn.Sequential):
    """A small FCN classifier: conv3x3 (C -> C/4), batch normalisation, ReLU, conv1x1 (C/4 -> classes).

    For the auxiliary loss on an inner stage, as in PSPNet (Zhao et al. 2017, section 3.3) and torchvision;
    `[B,C,h,w]` -> logits `[B,num_classes,h,w]`.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        classifier = nn.Conv2d(channels // 4, num_classes, 1)
        super().__init__(ConvNormAct(channels, channels // 4, 3), classifier)
        initialise(self)
        initialise_classifier(classifier)
