"""Contextrast: contextual contrastive learning with boundary-aware negatives.

Sung et al., "Contextrast: Contextual Contrastive Learning for Semantic Segmentation", CVPR 2024, arXiv 2404.10633.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.shared.layered_contrast import LayeredContrastConfig, layered_contrast
from pipeline.losses.shared.pixel_anchor import ClassAnchors
from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.models.network.head import Taps, TraineeOutput


@dataclass(frozen=True)
class ContextrastConfig(LayeredContrastConfig):
    """Settings of Contextrast: those of the layered contrast."""


class Contextrast(LossTerm):
    """Pixels of every encoder stage against class anchors that know the deepest stage's."""

    Config: ClassVar[type[ContextrastConfig]] = ContextrastConfig
    taps: ClassVar[Taps] = Taps.STAGES
    config: ContextrastConfig

    def build_heads(self, layers: int) -> nn.ModuleDict:
        """None; raises UserError when a tapped layer would have no weight."""
        self.config.check_layers(layers)
        return nn.ModuleDict()

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        """L_PA, the weighted sum over layers of the pixel-anchor contrast; statistics as of `LayeredContrast`."""
        contrast = layered_contrast(
            output,
            labels,
            self._fuse,
            self.config,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            generator=generator,
        )
        return TermOutput(loss=contrast.loss, statistics=contrast.statistics)

    def _fuse(self, anchors: Sequence[ClassAnchors]) -> list[Tensor]:
        """Fuse each layer's anchors with the deepest layer's: w_l a_i + w_h a_I where a class is in both, else a_i."""
        deepest, local = anchors[-1], self.config.local_weight
        return [
            F.normalize(
                torch.where(
                    (layer.present & deepest.present)[:, None],
                    local * layer.means + (1 - local) * deepest.means,
                    layer.means,
                ),
                dim=1,
            )
            for layer in anchors
        ]
