"""Training methods: one file each, found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.losses.shared.term import MethodLoss

LOSSES: Registry[type[MethodLoss]] = Registry(
    "loss",
    {
        "cross_entropy": "pipeline.losses.cross_entropy.loss:CrossEntropy",
        "pixel_contrast": "pipeline.losses.pixel_contrast.loss:PixelContrast",
        "contextrast": "pipeline.losses.contextrast.loss:Contextrast",
        "contextrast_pp": "pipeline.losses.contextrast_pp.loss:ContextrastPlusPlus",
    },
)
