"""Heads by name, one file each: from encoder stages to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.models.network.head import Head

HEADS: Registry[type[Head]] = Registry(
    "head",
    {
        "light": "pipeline.models.heads.light:LightHead",
        "fcn": "pipeline.models.heads.fcn:FCNHead",
        "deeplabv3": "pipeline.models.heads.deeplabv3:DeepLabV3Head",
        "hrnet": "pipeline.models.heads.hrnet:HRNetHead",
        "ocr": "pipeline.models.heads.ocr:OCRHead",
        "segformer": "pipeline.models.heads.segformer:SegFormerHead",
    },
)
