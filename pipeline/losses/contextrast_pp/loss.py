"""Contextrast++: adaptive fusion, and anchors contrasted with the anchors of earlier batches.

Sung et al., 2026, arXiv 2608.22679: L = L_CE + alpha (L_PA + L_AA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.contextrast_pp.adaptive_fusion import AdaptiveFusion
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.layered_contrast import LayeredContrastConfig, layered_contrast
from pipeline.losses.shared.pixel_anchor import ClassAnchors
from pipeline.losses.shared.resolution import NO_CLASS
from pipeline.losses.shared.ring_buffer import ClassRings
from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.models.network.head import Taps, TraineeOutput
from serving.contract.schema import Require


@dataclass(frozen=True)
class ContextrastPlusPlusConfig(LayeredContrastConfig):
    """Settings of Contextrast++: those of the layered contrast, and of the memory of anchors.

    Attributes:
        anchor_bank_size: anchors stored per class (K_M).
    """

    layer_weights: tuple[float, ...] = (1.0, 0.7, 0.3, 0.1)
    anchor_bank_size: int = 100

    def check(self, require: Require) -> None:
        """See `TermConfig.check`."""
        super().check(require)
        require(self.anchor_bank_size >= 1, f"anchor_bank_size: expected at least 1, got {self.anchor_bank_size}")


class ContextrastPlusPlus(LossTerm):
    """The layered contrast with fusion that is learned, and a memory of anchors."""

    Config: ClassVar[type[ContextrastPlusPlusConfig]] = ContextrastPlusPlusConfig
    taps: ClassVar[Taps] = Taps.STAGES
    config: ContextrastPlusPlusConfig

    def __init__(
        self, config: ContextrastPlusPlusConfig, *, num_classes: int, ignore_index: int, training_images: int
    ) -> None:
        super().__init__(config, num_classes=num_classes, ignore_index=ignore_index, training_images=training_images)
        self.bank = ClassRings((config.anchor_bank_size,), num_classes, config.embedding_dim)

    def build_heads(self, layers: int) -> nn.ModuleDict:
        """One fusion per layer but the deepest: `{"fusion": ModuleList}`, shallow to deep.

        Raises:
            UserError: a tapped layer would have no weight.
        """
        self.config.check_layers(layers)
        fusions = [AdaptiveFusion(self.config.embedding_dim, self.config.local_weight) for _ in range(layers - 1)]
        return nn.ModuleDict({"fusion": nn.ModuleList(fusions)})

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        """L_PA + L_AA; this step's anchors are stored afterwards.

        Statistics: those of `LayeredContrast`, `anchor_loss` (L_AA) and `bank_fill` in [0,1] of the anchor bank.
        """
        contrast = layered_contrast(
            output,
            labels,
            partial(fuse, heads=heads),
            self.config,
            num_classes=self.num_classes,
            ignore_index=self.ignore_index,
            generator=generator,
        )
        anchors, present = prioritise(contrast.anchors, contrast.present)
        anchor_loss = self._anchor_loss(anchors, present, generator)
        self.bank.write(0, anchors.detach()[None, :, None], present.long()[None])
        statistics = {
            **contrast.statistics,
            "anchor_loss": anchor_loss.detach(),
            "bank_fill": self.bank.fill(),
        }
        return TermOutput(loss=contrast.loss + anchor_loss, statistics=statistics)

    def _anchor_loss(self, anchors: Tensor, present: Tensor, generator: torch.Generator) -> Tensor:
        """L_AA: InfoNCE of the present anchors against as many stored anchors of every class that has any."""
        classes = torch.arange(self.num_classes, device=anchors.device)
        chosen = balanced_choice(self.bank.valid(), generator)
        return info_nce(
            anchors,
            classes.where(present, NO_CLASS),
            self.bank.rows.flatten(0, 1),
            classes.where(chosen, NO_CLASS).flatten(),
            temperature=self.config.temperature,
            base_temperature=self.config.temperature,
        )


def fuse(anchors: Sequence[ClassAnchors], *, heads: nn.ModuleDict) -> list[Tensor]:
    """Fuse each layer's anchors with the deepest layer's where a class is in both, by that layer's learned head.

    Args:
        anchors: of each layer, shallow to deep.
        heads: what `ContextrastPlusPlus.build_heads` gave.

    Returns:
        For each layer `[C,D]`, unit norm over D.
    """
    fusions = heads["fusion"]
    assert isinstance(fusions, nn.ModuleList)
    deepest = anchors[-1]
    fused = []
    for layer, fusion in zip(anchors[:-1], fusions, strict=True):
        both = (layer.present & deepest.present)[:, None]
        fused.append(F.normalize(torch.where(both, fusion(layer.means, deepest.means), layer.means), dim=1))
    return [*fused, F.normalize(deepest.means, dim=1)]


def prioritise(anchors: list[Tensor], present: list[Tensor]) -> tuple[Tensor, Tensor]:
    """For each class the anchor of the deepest layer where it is present.

    Args:
        anchors: of each layer `[C,D]`, shallow to deep.
        present: of each layer `[C]` bool.

    Returns:
        Anchors `[C,D]`, and `[C]` bool whether the class is present anywhere.
    """
    chosen, anywhere = anchors[0], present[0]
    for layer_anchors, layer_present in zip(anchors[1:], present[1:], strict=True):
        chosen = torch.where(layer_present[:, None], layer_anchors, chosen)
        anywhere = anywhere | layer_present
    return chosen, anywhere


def balanced_choice(valid: Tensor, generator: torch.Generator) -> Tensor:
    """Choose the same number of valid slots at random for every class that has any: as many as the poorest has.

    Args:
        valid: `[S,C]` bool.
        generator: source of the random choice, on the device of `valid`.

    Returns:
        `[S,C]` bool.
    """
    counts = valid.sum(0)
    number = counts.where(counts > 0, len(valid)).amin()
    random = torch.rand(valid.shape, generator=generator, device=valid.device).masked_fill(~valid, 2)
    return (random.argsort(dim=0).argsort(dim=0) < number) & valid
