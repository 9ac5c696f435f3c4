"""Object-contextual representations on HRNetV2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.branches import BranchClassifier, concatenate_branches
from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits
from pipeline.models.network.layers import ConvNormAct, initialise, initialise_classifier
from serving.contract.schema import Require


@dataclass(frozen=True)
class OCRHeadConfig:
    """Settings of the OCR head.

    Attributes:
        width: channels of the pixel and object representations.
        key_width: channels in which pixels and objects are compared.
        dropout: share of channels dropped before the classifier in training.
    """

    width: int = 512
    key_width: int = 256
    dropout: float = 0.05

    def __post_init__(self) -> None:
        require = Require()
        require(self.width >= 8, f"width: expected at least 8, got {self.width}")
        require(self.key_width >= 8, f"key_width: expected at least 8, got {self.key_width}")
        require(0 <= self.dropout < 1, f"dropout: expected in [0, 1), got {self.dropout}")
        require.done()


def object_regions(pixels: Tensor, region_logits: Tensor) -> Tensor:
    """One representation per class: pixels averaged with that class's softmax over the image (equation 8).

    Args:
        pixels: `[B,D,h,w]`.
        region_logits: `[B,K,h,w]`, of the auxiliary classifier.

    Returns:
        `[B,D,K,1]`.
    """
    weights = torch.softmax(region_logits.flatten(2), dim=2)
    return torch.matmul(pixels.flatten(2), weights.transpose(1, 2)).unsqueeze(3)


class ObjectAttention(nn.Module):
    """Each pixel gathers the object representations by its relation to them (equations 9 and 10)."""

    def __init__(self, width: int, key_width: int) -> None:
        super().__init__()
        self.scale = key_width**-0.5
        self.query = nn.Sequential(ConvNormAct(width, key_width), ConvNormAct(key_width, key_width))
        self.key = nn.Sequential(ConvNormAct(width, key_width), ConvNormAct(key_width, key_width))
        self.value = ConvNormAct(width, key_width)
        self.output = ConvNormAct(key_width, width)

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        """Object-contextual representations `[B,D,h,w]` of `pixels` `[B,D,h,w]` and `objects` `[B,D,K,1]`."""
        query = self.query(pixels)
        key = self.key(objects).squeeze(3)
        value = self.value(objects).squeeze(3)
        relation = torch.softmax(torch.matmul(query.flatten(2).transpose(1, 2), key) * self.scale, dim=2)  # [B,hw,K]
        context = torch.matmul(value, relation.transpose(1, 2)).view_as(query)
        contextual: Tensor = self.output(context)
        return contextual


class OCRHead(Head):
    """Coarse regions, their representations, and each pixel's context from them (Yuan et al. 2020, arXiv 1909.11065).

    The auxiliary classifier yields the coarse regions: it feeds the main classifier, so it ships. With HRNetV2-W48 and
    19 classes 70.37 M parameters (the model card of huggingface.co/qualcomm/HRNET_W48_OCR, which wraps the authors'
    network of 19 classes: 70.3M).
    """

    Config: ClassVar[type[OCRHeadConfig]] = OCRHeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.HRNET})

    def __init__(
        self, config: OCRHeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        self.output_stride = self.strides[0]
        self.input_channels = sum(self.channels)
        self.regions = BranchClassifier(self.input_channels, num_classes)
        self.pixels = ConvNormAct(self.input_channels, config.width, 3)
        self.attention = ObjectAttention(config.width, config.key_width)
        self.merge = ConvNormAct(2 * config.width, config.width)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.width, num_classes, 1)
        for part in (self.pixels, self.attention, self.merge):
            initialise(part)
        initialise_classifier(self.classifier)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the first branch, the coarse regions' among the auxiliary."""
        branches = concatenate_branches(stages, self.strides)
        region_logits = self.regions(branches)
        pixels = self.pixels(branches)
        contextual = self.attention(pixels, object_regions(pixels, region_logits))
        merged = self.merge(torch.cat([contextual, pixels], dim=1))
        return HeadOutput(Logits(self.classifier(self.dropout(merged)), (region_logits,)), branches)
