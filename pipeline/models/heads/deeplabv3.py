"""DeepLabV3: atrous spatial pyramid pooling on a dilated backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.models.network.catalog import Family
from pipeline.models.network.head import Head, HeadOutput, Logits
from pipeline.models.network.layers import ConvNormAct, global_mean, initialise, initialise_classifier
from serving.contract.errors import UserError
from serving.contract.schema import Require


@dataclass(frozen=True)
class DeepLabV3HeadConfig:
    """Settings of the DeepLabV3 head.

    Attributes:
        width: channels of every branch.
        rates: dilations of the 3x3 branches at output stride 16; doubled at 8 and halved at 32, as in the paper.
        image_pooling: add the branch that sees the mean over the whole image.
        dropout: share of features dropped after the branches are merged, in training.
    """

    width: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    image_pooling: bool = True
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require = Require()
        require(self.width >= 8, f"width: expected at least 8, got {self.width}")
        require(len(self.rates) > 0, "rates: expected at least one, got none")
        require(all(rate >= 2 for rate in self.rates), f"rates: expected at least 2 each, got {list(self.rates)}")
        require(0 <= self.dropout < 1, f"dropout: expected in [0, 1), got {self.dropout}")
        require.done()


class ImagePooling(nn.Module):
    """Mean over the image, conv1x1, batch normalisation, ReLU, spread over the image again."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        """`[B,C,h,w]` -> `[B,D,h,w]`, constant over h and w.

        Raises:
            UserError: one image in training: batch normalisation would see one value per channel.
        """
        if self.training and not torch.compiler.is_exporting() and features.shape[0] < 2:
            raise UserError(
                "train.batch_size: the head 'deeplabv3' normalises its pooled image features over the batch: expected "
                "at least 2 images per step, got 1; raise it, or set model.head_options.image_pooling: false"
            )
        pooled: Tensor = self.project(global_mean(features))
        # Spread by adding zeros made of the features: a size, as `expand` takes it, exports as arithmetic on shapes.
        return pooled + 0.0 * torch.mean(features, dim=1, keepdim=True)


class DeepLabV3Head(Head):
    """Parallel 1x1, dilated 3x3 and image-pooling branches, merged, refined and classified (Chen et al. 2017).

    "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587, section 3.3. The same layers as
    torchvision's: with ResNet-50 / ResNet-101 at output stride 8 and 21 classes 42 004 074 / 60 996 202 parameters,
    auxiliary classifier included (`torchvision.models.segmentation.DeepLabV3_ResNet50_Weights`, `..._ResNet101_...`).
    """

    Config: ClassVar[type[DeepLabV3HeadConfig]] = DeepLabV3HeadConfig
    families: ClassVar[frozenset[Family]] = frozenset({Family.MOBILE, Family.RESNET})
    dilated: ClassVar[bool] = True
    auxiliary_stage: ClassVar[int | None] = 2

    def __init__(
        self, config: DeepLabV3HeadConfig, *, channels: Sequence[int], strides: Sequence[int], num_classes: int
    ) -> None:
        super().__init__(config, channels=channels, strides=strides, num_classes=num_classes)
        self.output_stride = self.strides[-1]
        self.input_channels = self.channels[-1]
        width = config.width
        branches: list[nn.Module] = [ConvNormAct(self.input_channels, width)]
        for rate in config.rates:
            dilation = rate * 16 // self.output_stride
            branches.append(ConvNormAct(self.input_channels, width, 3, dilation=dilation))
        if config.image_pooling:
            branches.append(ImagePooling(self.input_channels, width))
        self.branches = nn.ModuleList(branches)
        self.merge = ConvNormAct(len(branches) * width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.refine = ConvNormAct(width, width, 3)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialise(self)
        initialise_classifier(self.classifier)

    def forward(self, stages: Sequence[Tensor]) -> HeadOutput:
        """See `Head.forward`; logits at the stride of the deepest stage. Raises as `ImagePooling.forward`."""
        deepest = stages[-1]
        merged = self.merge(torch.cat([branch(deepest) for branch in self.branches], dim=1))
        return HeadOutput(Logits(self.classifier(self.refine(self.dropout(merged)))), deepest)
