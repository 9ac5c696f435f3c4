"""The network that ships: backbones by name, the interface of heads, the segmentor and its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.models.network.catalog import BackboneSpec

_CATALOG = "pipeline.models.network.catalog"

BACKBONES: Registry[BackboneSpec] = Registry(
    "backbone",
    {
        "tf_efficientnet_lite0": f"{_CATALOG}:TF_EFFICIENTNET_LITE0",
        "tf_efficientnet_lite2": f"{_CATALOG}:TF_EFFICIENTNET_LITE2",
        "mobilenetv2_100": f"{_CATALOG}:MOBILENETV2_100",
        "mobilenetv3_large_100": f"{_CATALOG}:MOBILENETV3_LARGE_100",
        "mobilenetv3_small_100": f"{_CATALOG}:MOBILENETV3_SMALL_100",
        "mobilenetv4_conv_small": f"{_CATALOG}:MOBILENETV4_CONV_SMALL",
        "resnet18": f"{_CATALOG}:RESNET18",
        "resnet50": f"{_CATALOG}:RESNET50",
        "resnet101": f"{_CATALOG}:RESNET101",
        "hrnet_w18_small_v2": f"{_CATALOG}:HRNET_W18_SMALL_V2",
        "hrnet_w18": f"{_CATALOG}:HRNET_W18",
        "hrnet_w48": f"{_CATALOG}:HRNET_W48",
        "hgnetv2_b0": f"{_CATALOG}:HGNETV2_B0",
        "hgnetv2_b1": f"{_CATALOG}:HGNETV2_B1",
        "repvit_m1": f"{_CATALOG}:REPVIT_M1",
        "efficientvit_b0": f"{_CATALOG}:EFFICIENTVIT_B0",
        "pvt_v2_b0": f"{_CATALOG}:PVT_V2_B0",
        "pvt_v2_b1": f"{_CATALOG}:PVT_V2_B1",
    },
)
