"""A light multi-scale head for small backbones: accurate on little data, fast on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits
from pipeline.models.network.layers import (
    ConvNormAct,
    SeparableConv,
    enlarge,
    global_mean,
    initialise,
    initialise_classifier,
)
from serving.contract.schema import Require


@dataclass(frozen=True)
class LightHeadConfig:
    """Settings of the light head.

    Attributes:
        width: channels D of the pyramid.
    """

    width: int = 128

    def __post_init__(self) -> None:
        require = Require()
        require(self.width >= 8, f"width: expected at least 8, got {self.width}")
        require.done()


class LightHead(Head):
    """A feature pyramid with global context, at the stride of the shallowest stage.

    Each stage passes a 1x1 lateral convolution to D channels (Lin et al. 2017, "Feature Pyramid Networks for Object
    Detection"). The deepest is gated by its own global mean, as in LR-ASPP (Howard et al. 2019, "Searching for
    MobileNetV3", section 6.4). Going up, the sum so far is refined by a depthwise-separable 3x3 convolution, upsampled
    bilinearly and added to the next lateral. The sum at the shallowest stage is what `Taps.HEAD_INPUT` reads: it holds
    every scale, as the concatenated branches do in HRNet. A last depthwise-separable convolution and a 1x1 classifier
    follow.
    """

    Config: ClassVar[type[LightHeadConfig]] = LightHeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.MOBILE, Family.RESNET, Family.PYRAMID})

    def __init__(
        self, config: LightHeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        width = config.width
        self.output_stride = self.strides[0]
        self.input_channels = width
        self.laterals = nn.ModuleList(ConvNormAct(count, width, act=False) for count in self.channels)
        # The gate sees one pixel per image: batch normalisation there would fail on a batch of one.
        self.gate = nn.Conv2d(self.channels[-1], width, 1)
        self.refinements = nn.ModuleList(SeparableConv(width, width) for _ in self.channels)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialise(self)
        initialise_classifier(self.classifier)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the shallowest stage."""
        fused = self.laterals[-1](stages[-1]) * torch.sigmoid(self.gate(global_mean(stages[-1])))
        for index in range(len(stages) - 2, -1, -1):
            refined = enlarge(self.refinements[index + 1](fused), self.strides[index + 1] // self.strides[index])
            fused = refined + self.laterals[index](stages[index])
        return HeadOutput(Logits(self.classifier(self.refinements[0](fused))), fused)
