"""Training methods: one file each, found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.registry import Registry

if TYPE_CHECKING:
    from pipeline.losses.interface import MethodLoss

LOSSES: Registry[type[MethodLoss]] = Registry(
    "loss",
    {
        "cross_entropy": "pipeline.losses.cross_entropy:CrossEntropy",
        "pixel_contrast": "pipeline.losses.pixel_contrast:PixelContrast",
        "contextrast": "pipeline.losses.contextrast:Contextrast",
        "contextrast_pp": "pipeline.losses.contextrast_pp:ContextrastPlusPlus",
    },
)
