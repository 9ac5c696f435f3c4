"""The plain fully convolutional head on a dilated backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits
from pipeline.models.network.layers import ConvNormAct, initialise, initialise_classifier
from serving.contract.schema import Require


@dataclass(frozen=True)
class FCNHeadConfig:
    """Settings of the FCN head.

    Attributes:
        dropout: share of features dropped before the classifier in training.
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        require = Require()
        require(0 <= self.dropout < 1, f"dropout: expected in [0, 1), got {self.dropout}")
        require.done()


class FCNHead(Head):
    """conv3x3 (C -> C/4), batch normalisation, ReLU, dropout, conv1x1, on the deepest stage (Long et al. 2015).

    The same layers as torchvision's: with ResNet-50 and 21 classes 35 322 218 parameters, auxiliary classifier included
    (`torchvision.models.segmentation.FCN_ResNet50_Weights`).
    """

    Config: ClassVar[type[FCNHeadConfig]] = FCNHeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.MOBILE, Family.RESNET})
    dilated: ClassVar[bool] = True
    auxiliary_stage: ClassVar[int | None] = 2

    def __init__(
        self, config: FCNHeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        self.output_stride = self.strides[-1]
        self.input_channels = self.channels[-1]
        width = self.input_channels // 4
        self.hidden = ConvNormAct(self.input_channels, width, 3)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialise(self)
        initialise_classifier(self.classifier)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the deepest stage."""
        deepest = stages[-1]
        return HeadOutput(Logits(self.classifier(self.dropout(self.hidden(deepest)))), deepest)
