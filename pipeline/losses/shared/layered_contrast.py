"""The contrast of every encoder stage's pixels with class anchors that know the deepest stage's (Sung et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.losses.shared.class_products import EmbeddingMap
from pipeline.losses.shared.distributed import gather_batch, world_size
from pipeline.losses.shared.gather import embedding_map
from pipeline.losses.shared.pixel_anchor import ClassAnchors, Layer, class_anchors, pixel_anchor_terms, pixel_roles
from pipeline.losses.shared.resolution import NO_CLASS, majority, nearest, predicted_classes
from pipeline.losses.shared.statistics import alignment_and_uniformity
from pipeline.losses.shared.term import ContrastConfig
from pipeline.models.network.head import TraineeOutput
from serving.contract.errors import UserError
from serving.contract.schema import Require

# From this stride on a cell holds so many pixels that `purity` asks which class they are of.
COARSE_STRIDE = 16

# From the anchors of each layer, shallow to deep, to the fused ones `[C,D]`, unit norm over D.
Fusion = Callable[[Sequence[ClassAnchors]], list[Tensor]]


@dataclass(frozen=True)
class LayeredContrastConfig(ContrastConfig):
    """Settings of the layered contrast; `weight` is the papers' alpha.

    Attributes:
        temperature: tau of the similarities.
        layer_weights: lambda of each tapped layer, deep to shallow.
        local_weight: w_l, the share of a layer's own anchor in the fused one; the deepest layer's has the rest.
        positives_per_class: most positives per class and layer.
        boundary_fraction: share of each error region, nearest to its edge first, that becomes negatives.
        negatives: whose negatives those are: of the anchors of all other classes (`others`), or of the one class that
            was predicted there (`predicted`).
        purity: at strides of 16 and more a cell is of the class that most of its pixels have, and of none where that is
            less than this share of them; predictions are those of the majority too. None for the class of the pixel at
            the cell's centre, as at finer strides and in the published code.
    """

    temperature: float = 0.1
    layer_weights: tuple[float, ...] = (1.0, 0.7, 0.4, 0.1)
    local_weight: float = 0.5
    positives_per_class: int = 512
    boundary_fraction: float = 0.5
    negatives: Literal["others", "predicted"] = "others"
    purity: float | None = None

    def check(self, require: Require) -> None:
        """See `TermConfig.check`."""
        super().check(require)
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
        require(self.purity is None or 0 <= self.purity <= 1, f"purity: expected in [0,1], got {self.purity}")

    def check_layers(self, layers: int) -> None:
        """Raise UserError unless each of `layers` tapped layers has its weight."""
        if layers != len(self.layer_weights):
            raise UserError(
                f"layer_weights: expected one for each of the network's {layers} stages, deep to shallow, "
                f"got {list(self.layer_weights)}"
            )


@dataclass(frozen=True)
class LayeredContrast:
    """The pixel-anchor contrast of all layers.

    Attributes:
        loss: scalar, the weighted sum over layers.
        anchors: fused anchors of each layer `[C,D]`, unit norm, shallow to deep.
        present: for each layer `[C]` bool, whether the class is there.
        statistics: `anchors` (over all layers), `class_share` (of the classes in the shallowest layer, those that have
            an anchor; mean over layers), `boundary_pixels` (boundary-aware negatives over all layers), `filled_share`
            (of the anchors, those whose negatives are random pixels), `alignment` and `uniformity` of the deepest
            layer.
    """

    loss: Tensor
    anchors: list[Tensor]
    present: list[Tensor]
    statistics: dict[str, Tensor]


def layered_contrast(
    output: TraineeOutput,
    labels: Tensor,
    fuse: Fusion,
    config: LayeredContrastConfig,
    *,
    num_classes: int,
    ignore_index: int,
    generator: torch.Generator,
) -> LayeredContrast:
    """L_PA: the pixel-anchor contrast of every layer, in float32 or float64 whatever autocast says.

    Args:
        output: logits, and the embeddings of the tapped layers.
        labels: `[B,H,W]` int64.
        fuse: how each layer's anchors take up the deepest layer's.
        config: the settings.
        num_classes: number of classes C.
        ignore_index: label outside every class.
        generator: source of the random choice, on the device of the labels.
    """
    labels = labels.where(labels != ignore_index, NO_CLASS)
    predictions = predicted_classes(output.logits.main)
    with torch.autocast(labels.device.type, enabled=False):
        layers = [
            _at_layer(embedding_map(embeddings), labels, predictions, num_classes, config.purity)
            for embeddings in output.embeddings
        ]
        anchors = [class_anchors(layer, num_classes) for layer in layers]
        fused = fuse(anchors)
        roles = pixel_roles(
            layers,
            num_classes,
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
        deepest, part = layers[-1], slice(None, None, world_size())
        statistics = {
            "anchors": anchored.float(),
            "class_share": anchored / present.clamp(min=1),
            "boundary_pixels": roles.boundary_pixels.float(),
            "filled_share": filled / anchored.clamp(min=1),
            **alignment_and_uniformity(
                gather_batch(deepest.pixels.values.flatten(2).transpose(1, 2).flatten(0, 1)[part]),
                gather_batch(deepest.labels.flatten()[part]),
            ),
        }
    return LayeredContrast(loss, fused, [layer_anchors.present for layer_anchors in anchors], statistics)


def _at_layer(embeddings: Tensor, labels: Tensor, predictions: Tensor, num_classes: int, purity: float | None) -> Layer:
    size = (embeddings.shape[2], embeddings.shape[3])
    wide = EmbeddingMap(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))
    if purity is None or labels.shape[1] < COARSE_STRIDE * size[0]:
        return Layer(wide, nearest(labels, size), nearest(predictions, size))
    return Layer(
        wide,
        majority(labels, size, num_classes=num_classes, purity=purity),
        majority(predictions, size, num_classes=num_classes, purity=0),
    )
