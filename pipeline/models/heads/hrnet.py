"""HRNetV2's segmentation head: the four branches together at stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.catalog import Family
from pipeline.models.interface import Head, HeadOutput
from pipeline.models.layers import enlarge, initialise, initialise_classifier


@dataclass(frozen=True)
class HRNetHeadConfig:
    """The HRNetV2 head has no settings."""


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


class HRNetHead(Head):
    """The representation of HRNetV2 (Wang et al. 2020, arXiv 1908.07919, section 3.4) and its classifier.

    With HRNetV2-W48 and 19 classes 65.86 M parameters, with W18-Small-v2 3.94 M (the tables of Cityscapes models in the
    README of github.com/HRNet/HRNet-Semantic-Segmentation, branch pytorch-v1.1: 65.8M and 3.9M).
    """

    Config: ClassVar[type[HRNetHeadConfig]] = HRNetHeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.HRNET})

    def __init__(
        self, config: HRNetHeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        self.output_stride = self.strides[0]
        self.input_channels = sum(self.channels)
        self.classifier = BranchClassifier(self.input_channels, num_classes)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the first branch."""
        branches = concatenate_branches(stages, self.strides)
        return HeadOutput(self.classifier(branches), branches)
