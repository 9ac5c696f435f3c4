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
    },
)

HEADS: Registry[type[Head]] = Registry("head", {"light": "pipeline.models.heads.light:LightHead"})
