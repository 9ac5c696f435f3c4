"""Pixel contrast within the batch (ContrastiveSeg: Wang et al., "Exploring Cross-Image Pixel Contrast", ICCV 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.config.schema import Require
from pipeline.losses.info_nce import info_nce
from pipeline.losses.interface import ContrastConfig, MethodLoss, MethodLossOutput
from pipeline.losses.resolution import nearest, predicted_classes
from pipeline.losses.rows import gather_rows
from pipeline.losses.sampling import sample_anchors
from pipeline.losses.statistics import alignment_and_uniformity, class_share
from pipeline.models.interface import Taps, TraineeOutput


@dataclass(frozen=True)
class PixelContrastConfig(ContrastConfig):
    """Settings of pixel contrast.

    Attributes:
        temperature: tau of the similarities.
        base_temperature: tau_base; the loss is scaled by tau / tau_base.
        max_samples: most anchors per batch.
        max_views: most anchors per (image, class); a class needs more feature pixels than this in an image to be
            contrasted there, so small inputs want a small value.
    """

    temperature: float = 0.1
    base_temperature: float = 0.07
    max_samples: int = 1024
    max_views: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require = Require()
        require(self.temperature > 0, f"temperature: expected above 0, got {self.temperature}")
        require(self.base_temperature > 0, f"base_temperature: expected above 0, got {self.base_temperature}")
        require(self.max_samples >= 1, f"max_samples: expected at least 1, got {self.max_samples}")
        require(self.max_views >= 1, f"max_views: expected at least 1, got {self.max_views}")
        require.done()


class PixelContrast(MethodLoss):
    """Segmentation-aware anchors contrasted with each other across the images of a batch."""

    Config: ClassVar[type[PixelContrastConfig]] = PixelContrastConfig
    taps: ClassVar[Taps] = Taps.HEAD_INPUT
    config: PixelContrastConfig

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> MethodLossOutput:
        """InfoNCE of the sampled anchors.

        Statistics: `anchors`, `hard_share` (of the anchors), `class_share` (classes present that have an anchor),
        `alignment`, `uniformity`.
        """
        (embeddings,) = output.embeddings
        height, width = embeddings.shape[-2:]
        labels = nearest(labels, (height, width))
        anchors = sample_anchors(
            labels,
            predicted_classes(output.logits, (height, width)),
            max_samples=self.config.max_samples,
            max_views=self.config.max_views,
            ignore_index=self.ignore_index,
            generator=generator,
        )
        rows = gather_rows(embeddings, anchors.image, anchors.pixel)
        loss = info_nce(
            rows,
            anchors.label,
            temperature=self.config.temperature,
            base_temperature=self.config.base_temperature,
        )
        statistics = {
            "anchors": torch.full((), float(len(anchors)), device=labels.device),
            "hard_share": anchors.hard.sum() / max(1, len(anchors)),
            "class_share": class_share(anchors.label, labels, num_classes=self.num_classes),
            **alignment_and_uniformity(rows, anchors.label),
        }
        return MethodLossOutput(loss=loss, statistics=statistics)
