"""Contextrast: contextual contrastive learning with boundary-aware negatives.

Sung et al., "Contextrast: Contextual Contrastive Learning for Semantic Segmentation", CVPR 2024, arXiv 2404.10633.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.shared.boundary import boundary_aware_negatives
from pipeline.losses.shared.class_products import EmbeddingMap
from pipeline.losses.shared.pixel_anchor import ClassAnchors, Layer, class_anchors, pixel_anchor_terms, pixel_roles
from pipeline.losses.shared.resolution import NO_CLASS, nearest, predicted_classes
from pipeline.losses.shared.statistics import alignment_and_uniformity
from pipeline.losses.shared.term import ContrastConfig, MethodLoss, MethodLossOutput
from pipeline.models.network.head import Taps, TraineeOutput
from serving.contract.errors import UserError
from serving.contract.schema import Require

__all__ = ["Contextrast", "ContextrastConfig", "boundary_aware_negatives"]


@dataclass(frozen=True)
class ContextrastConfig(ContrastConfig):
    """Settings of Contextrast; `weight` is the papers' alpha.

    Attributes:
        temperature: tau of the similarities.
        layer_weights: lambda of each tapped layer, deep to shallow.
        local_weight: w_l, the share of a layer's own anchor in the fused one; the deepest layer's has the rest.
        positives_per_class: most positives per class and layer.
        boundary_fraction: share of each error region, nearest to its edge first, that becomes negatives.
        negatives: whose negatives those are: of the anchors of all other classes (`others`), or of the one class that
            was predicted there (`predicted`).
    """

    temperature: float = 0.1
    layer_weights: tuple[float, ...] = (1.0, 0.7, 0.4, 0.1)
    local_weight: float = 0.5
    positives_per_class: int = 512
    boundary_fraction: float = 0.5
    negatives: Literal["others", "predicted"] = "others"

    def __post_init__(self) -> None:
        super().__post_init__()
        require = Require()
        require(self.temperature > 0, f"temperature: expected above 0, got {self.temperature}")
        require(
            bool(self.layer_weights) and all(weight >= 0 for weight in self.layer_weights) and any(self.layer_weights),
            f"layer_weights: expected at least 0 each and not all 0, got {list(self.layer_weights)}",
        )
        require(0 <= self.local_weight <= 1, f"local_weight: expected in [0,1], got {self.local_weight}")
        require(
            self.positives_per_class >= 1, f"positives_per_class: expected at least 1, got {self.positives_per_class}"
        )
        require(0 <= self.boundary_fraction <= 1, f"boundary_fraction: expected in [0,1], got {self.boundary_fraction}")
        require.done()


@dataclass(frozen=True)
class LayeredContrast:
    """The pixel-anchor contrast of all layers.

    Attributes:
        loss: scalar, the weighted sum over layers.
        anchors: fused anchors of each layer `[C,D]`, unit norm, shallow to deep.
        present: for each layer `[C]` bool, whether the class is there.
        statistics: what is logged.
    """

    loss: Tensor
    anchors: list[Tensor]
    present: list[Tensor]
    statistics: dict[str, Tensor]


class Contextrast(MethodLoss):
    """Pixels of every encoder stage against class anchors that know the deepest stage's."""

    Config: ClassVar[type[ContextrastConfig]] = ContextrastConfig
    taps: ClassVar[Taps] = Taps.STAGES
    config: ContextrastConfig

    def build_heads(self, layers: int) -> nn.ModuleDict:
        """None; raises UserError when a tapped layer would have no weight."""
        if layers != len(self.config.layer_weights):
            raise UserError(
                f"layer_weights: expected one for each of the network's {layers} stages, deep to shallow, "
                f"got {list(self.config.layer_weights)}"
            )
        return nn.ModuleDict()

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> MethodLossOutput:
        """L_PA, the weighted sum over layers of the pixel-anchor contrast.

        Statistics: `anchors` (over all layers), `class_share` (of the classes in the shallowest layer, those that have
        an anchor; mean over layers), `boundary_pixels` (boundary-aware negatives over all layers), `filled_share` (of
        the anchors, those whose negatives are random pixels), `alignment` and `uniformity` of the deepest layer.
        """
        contrast = self.contrast_layers(output, labels, heads, generator)
        return MethodLossOutput(loss=contrast.loss, statistics=contrast.statistics)

    def contrast_layers(
        self, output: TraineeOutput, labels: Tensor, heads: nn.ModuleDict, generator: torch.Generator
    ) -> LayeredContrast:
        """The pixel-anchor contrast of every layer; arguments as of `forward`."""
        config = self.config
        labels = labels.where(labels != self.ignore_index, NO_CLASS)
        predictions = predicted_classes(output.logits)
        with torch.autocast(labels.device.type, enabled=False):
            layers = [_at_layer(embeddings, labels, predictions) for embeddings in output.embeddings]
            anchors = [class_anchors(layer, self.num_classes) for layer in layers]
            fused = self.fuse(anchors, heads)
            roles = pixel_roles(
                layers,
                self.num_classes,
                positives_per_class=config.positives_per_class,
                boundary_fraction=config.boundary_fraction,
                negatives=config.negatives,
                generator=generator,
            )
            terms = pixel_anchor_terms(layers, fused, roles, temperature=config.temperature)
            weights = config.layer_weights[::-1]
            loss = torch.stack([weight * term.loss for weight, term in zip(weights, terms, strict=True)]).sum()
            anchored = torch.stack([term.anchored for term in terms]).sum()
            filled = torch.stack([term.filled for term in terms]).sum()
            present = len(layers) * anchors[0].present.sum()
            deepest = layers[-1]
            statistics = {
                "anchors": anchored.float(),
                "class_share": anchored / present.clamp(min=1),
                "boundary_pixels": roles.boundary_pixels.float(),
                "filled_share": filled / anchored.clamp(min=1),
                **alignment_and_uniformity(
                    deepest.pixels.values.flatten(2).transpose(1, 2).flatten(0, 1), deepest.labels.flatten()
                ),
            }
        return LayeredContrast(loss, fused, [layer_anchors.present for layer_anchors in anchors], statistics)

    def fuse(self, anchors: list[ClassAnchors], heads: nn.ModuleDict) -> list[Tensor]:
        """Fuse each layer's anchors with the deepest layer's: w_l a_i + w_h a_I where a class is in both, else a_i.

        Args:
            anchors: of each layer, shallow to deep.
            heads: what `build_heads` gave.

        Returns:
            For each layer `[C,D]`, unit norm over D.
        """
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


def _at_layer(embeddings: Tensor, labels: Tensor, predictions: Tensor) -> Layer:
    size = (embeddings.shape[2], embeddings.shape[3])
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    return Layer(EmbeddingMap(wide), nearest(labels, size), nearest(predictions, size))
