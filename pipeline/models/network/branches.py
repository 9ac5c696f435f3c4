"""The parallel branches of HRNet brought together: what the heads on it share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.models.network.layers import enlarge, initialise, initialise_classifier


def concatenate_branches(stages: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Every branch upsampled bilinearly to the first one's size and concatenated: `[B,sum(C_i),h_1,w_1]`."""
    return torch.cat(
        [enlarge(stage, stride // strides[0]) for stage, stride in zip(stages, strides, strict=True)], dim=1
    )


class BranchClassifier(nn.Sequential):
    """conv1x1 (C -> C), batch normalisation, ReLU, conv1x1 (C -> classes), on the concatenated branches."""

    def __init__(self, channels: int, num_classes: int) -> None:
        classifier = nn.Conv2d(channels, num_classes, 1)
        # The first convolution has a bias, though the normalisation undoes it: the published network has it too.
        super().__init__(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), classifier)
        initialise(self)
        initialise_classifier(classifier)
