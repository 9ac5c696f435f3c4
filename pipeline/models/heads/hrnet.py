"""HRNetV2's segmentation head: the four branches together at stride 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.models.network.branches import BranchClassifier, concatenate_branches
from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits


@dataclass(frozen=True)
class HRNetHeadConfig:
    """The HRNetV2 head has no settings."""


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
        return HeadOutput(Logits(self.classifier(branches)), branches)
