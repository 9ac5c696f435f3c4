"""The network that ships: image -> backbone -> head -> logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.compute.random_streams import random_stream
from pipeline.models.heads import HEADS
from pipeline.models.network import BACKBONES
from pipeline.models.network.backbone import Backbone
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import SegmentorFeatures
from pipeline.models.network.layers import enlarge as enlarge
from pipeline.models.network.layers import upsample as upsample
from serving.contract.errors import UserError


class Segmentor(nn.Module):
    """Backbone and head: everything that inference needs and nothing else.

    Args:
        config: the network's configuration.
        num_classes: number of classes C.

    Attributes:
        stride: H and W of an image must be multiples of it.
        output_stride: stride of the logits.
        stage_channels: channels of the encoder stages, shallow to deep.
        stage_strides: their strides.
        head_input_channels: channels of the tensor tapped by `Taps.HEAD_INPUT`.
        auxiliary_stage: index of the stage that an auxiliary classifier reads in training, or None.
        mean: buffer `[3]` float32, RGB, 0..255.
        std: buffer `[3]` float32, RGB, 0..255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.backbone = Backbone(
            BACKBONES.resolve(config.backbone),
            output_stride=config.backbone_output_stride(),
            pretrained=config.pretrained,
        )
        self.stage_channels = self.backbone.channels
        self.stage_strides = self.backbone.strides
        self.head = HEADS.resolve(config.head)(
            config.head_config(), channels=self.stage_channels, strides=self.stage_strides, num_classes=num_classes
        )
        self.stride = max(self.stage_strides)
        self.output_stride = self.head.output_stride
        self.head_input_channels = self.head.input_channels
        self.auxiliary_stage = self.head.auxiliary_stage
        # Not saved: they follow from the configuration.
        self.register_buffer("mean", torch.tensor(self.backbone.mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(self.backbone.std, dtype=torch.float32), persistent=False)

    def normalise(self, images: Tensor) -> Tensor:
        """`[B,3,H,W]` RGB in 0..255, any dtype -> normalised float32, what `forward` takes."""
        return (images.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def features(self, images: Tensor) -> SegmentorFeatures:
        """Logits and everything that a training head may tap, of normalised images `[B,3,H,W]`.

        Raises:
            ValueError: H or W is not a multiple of `stride`.
            UserError: training on one image of one deepest pixel, on which batch normalisation is undefined.
        """
        # Python sizes only: under torch.export the sizes are symbols and a check would become a constraint on them.
        if not torch.compiler.is_exporting():
            self._check_size(images)
        stages = self.backbone(images)
        return SegmentorFeatures(stages, self.head(stages))

    def _check_size(self, images: Tensor) -> None:
        batch, _, height, width = images.shape
        if height % self.stride or width % self.stride or not height or not width:
            raise ValueError(
                f"images: expected height and width in multiples of {self.stride}, got {height}x{width}; "
                "pad them first (serving.images.geometry.place)"
            )
        if self.training and batch == 1 and height == width == self.stride:
            raise UserError(
                f"train: one {height}x{width} image per step leaves a single pixel at stride {self.stride}, on which "
                "batch normalisation cannot train; raise train.batch_size or the crop"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[B,C,h,w]` at `output_stride` of normalised images `[B,3,H,W]`. Raises as `features` does."""
        return self.features(images).head.logits.main


def build_segmentor(config: ModelConfig, num_classes: int, *, seed: int) -> Segmentor:
    """A segmentor on the CPU whose initial weights follow from `seed` alone.

    Torch's global generator is left as it was.

    Args:
        config: the network's configuration; with `pretrained: false` no weights file is touched.
        num_classes: number of classes C.
        seed: of the initial weights; two methods with one seed start from the same segmentor.

    Raises:
        UserError: pretrained weights are not at hand.
    """
    with random_stream("segmentor", seed):
        return Segmentor(config, num_classes)
