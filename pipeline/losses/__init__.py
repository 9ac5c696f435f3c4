"""Losses, one room each: the loss terms that params.yaml selects by name, what they share, and the supervised terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving.contract.registry import Registry

if TYPE_CHECKING:
    from pipeline.losses.shared.term import LossTerm

LOSSES: Registry[type[LossTerm]] = Registry(
    "loss",
    {
        "cross_entropy": "pipeline.losses.cross_entropy.loss:CrossEntropy",
        "pixel_contrast": "pipeline.losses.pixel_contrast.loss:PixelContrast",
        "contextrast": "pipeline.losses.contextrast.loss:Contextrast",
        "contextrast_pp": "pipeline.losses.contextrast_pp.loss:ContextrastPlusPlus",
    },
)
