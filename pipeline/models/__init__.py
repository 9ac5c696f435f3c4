"""Networks: backbones, heads, the segmentor that ships and the trainee around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from pipeline.models.catalog import BackboneSpec
    from pipeline.models.interface import Head

BACKBONES: Registry[BackboneSpec] = Registry(
    "backbone",
    {
        "tf_efficientnet_lite0": "pipeline.models.catalog:TF_EFFICIENTNET_LITE0",
        "mobilenetv2_100": "pipeline.models.catalog:MOBILENETV2_100",
        "mobilenetv3_large_100": "pipeline.models.catalog:MOBILENETV3_LARGE_100",
        "mobilenetv3_small_100": "pipeline.models.catalog:MOBILENETV3_SMALL_100",
        "resnet18": "pipeline.models.catalog:RESNET18",
        "resnet50": "pipeline.models.catalog:RESNET50",
        "resnet101": "pipeline.models.catalog:RESNET101",
        "hrnet_w18_small_v2": "pipeline.models.catalog:HRNET_W18_SMALL_V2",
        "hrnet_w18": "pipeline.models.catalog:HRNET_W18",
        "hrnet_w48": "pipeline.models.catalog:HRNET_W48",
    },
)

HEADS: Registry[type[Head]] = Registry(
    "head",
    {
        "light": "pipeline.models.heads.light:LightHead",
        "fcn": "pipeline.models.heads.fcn:FCNHead",
        "deeplabv3": "pipeline.models.heads.deeplabv3:DeepLabV3Head",
        "hrnet": "pipeline.models.heads.hrnet:HRNetHead",
        "ocr": "pipeline.models.heads.ocr:OCRHead",
    },
)
