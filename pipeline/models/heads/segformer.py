"""SegFormer's head: a linear layer per stage, one over all of them, and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits
from pipeline.models.network.layers import ConvNormAct, enlarge, initialise, initialise_classifier
from serving.contract.schema import Require


@dataclass(frozen=True)
class SegFormerHeadConfig:
    """Settings of SegFormer's head.

    Attributes:
        width: channels D of every linear layer; 256 with the smallest encoders and 768 with larger ones in the paper.
        dropout: share of the channels that are zeroed before the classifier in training.
    """

    width: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require = Require()
        require(self.width >= 8, f"width: expected at least 8, got {self.width}")
        require(0 <= self.dropout < 1, f"dropout: expected in [0, 1), got {self.dropout}")
        require.done()


class SegFormerHead(Head):
    """The all-MLP decoder (Xie et al. 2021, "SegFormer", section 3.2, equation 4), at the shallowest stage's stride.

    Each stage passes a linear layer to D channels and is upsampled bilinearly to the shallowest; one linear layer takes
    the concatenated 4 D channels to D, with batch normalisation and ReLU as in the authors' code, and another to the
    classes. A linear layer on every pixel is a 1x1 convolution. What `Taps.HEAD_INPUT` reads is the fused D channels:
    they hold every scale.
    """

    Config: ClassVar[type[SegFormerHeadConfig]] = SegFormerHeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.TRANSFORMER})

    def __init__(
        self, config: SegFormerHeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        width = config.width
        self.output_stride = self.strides[0]
        self.input_channels = width
        self.projections = nn.ModuleList(nn.Conv2d(count, width, 1) for count in self.channels)
        self.fusion = ConvNormAct(len(self.channels) * width, width)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialise(self)
        initialise_classifier(self.classifier)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the shallowest stage."""
        projected = [
            enlarge(projection(stage), stride // self.strides[0])
            for projection, stage, stride in zip(self.projections, stages, self.strides, strict=True)
        ]
        # The published code concatenates from the deepest to the shallowest; its weights then fit channel by channel.
        fused = self.fusion(torch.cat(projected[::-1], dim=1))
        return HeadOutput(Logits(self.classifier(self.dropout(fused))), fused)
