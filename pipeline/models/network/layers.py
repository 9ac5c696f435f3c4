"""Layers that heads share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of `[B,C,h,w]` to `[B,C,*size]`, pixel centres aligned (`align_corners=False`).

    The one interpolation of the project: evaluation and the exported graph use it, heads through `enlarge`.
    """
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def enlarge(features: Tensor, factor: int) -> Tensor:
    """Bilinear upsampling of `[B,C,h,w]` to `[B,C,factor*h,factor*w]`, equal to `upsample` to that size.

    Given a factor the exported graph holds one Resize with constant scales; given a size it would compute shapes.
    """
    if factor == 1:
        return features
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)


def global_mean(features: Tensor) -> Tensor:
    """Mean over height and width, `[B,C,h,w]` -> `[B,C,1,1]`; exports as one reduction at any size."""
    return torch.mean(features, dim=(2, 3), keepdim=True)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU; "same" padding for odd kernels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel,
                padding=dilation * (kernel // 2),
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        ]
        if act:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise convolution, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ConvNormAct(in_channels, in_channels, 3, groups=in_channels),
            ConvNormAct(in_channels, out_channels),
        )


def initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, zero biases, unit batch normalisation (He et al. 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def initialise_classifier(classifier: nn.Conv2d) -> None:
    """Small weights, so that training starts from nearly uniform probabilities."""
    nn.init.normal_(classifier.weight, std=0.01)
    assert classifier.bias is not None
    nn.init.zeros_(classifier.bias)
