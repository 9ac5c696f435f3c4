"""Pixel contrast within the batch or against a memory bank (ContrastiveSeg).

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021, arXiv 2101.11939.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from pipeline.losses.shared.distributed import gather_rows, mean_over_ranks, own_rank, sum_over_ranks, world_size
from pipeline.losses.shared.gather import embedding_map, embeddings_at
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.info_nce_by_class import info_nce_by_class
from pipeline.losses.shared.memory_bank import MemoryBank
from pipeline.losses.shared.resolution import NO_CLASS, nearest, predicted_classes
from pipeline.losses.shared.sampling import AnchorSample, sample_views
from pipeline.losses.shared.semi_hard import SemiHard
from pipeline.losses.shared.statistics import alignment_and_uniformity, class_share
from pipeline.losses.shared.term import ContrastConfig, LossTerm, TermOutput
from pipeline.losses.shared.unreliable import Unreliable, info_nce_with_unreliable, sample_unreliable
from pipeline.models.network.head import Taps, TraineeOutput, Unprojected
from serving.contract.errors import UserError
from serving.contract.schema import Require

# Rows per class where the config leaves them open: of regions one per training image, at most the published code's
# 5000; of pixels ten times as many where they fit, since each image gives up to ten: both rings then last as long.
DEFAULT_BANK_ROWS = 5000
_PIXELS_PER_REGION_ROW = 10
# A selector ranks whole rows of similarities: the keys are read once per chunk, so a few large chunks suit it.
_SELECTION_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PixelContrastConfig(ContrastConfig):
    """Settings of pixel contrast.

    Attributes:
        temperature: tau of the similarities.
        base_temperature: tau_base; the loss is scaled by tau / tau_base.
        max_samples: most anchors per batch, over all ranks of a distributed training.
        max_views: most anchors per (image, class); unless `min_pixels` says otherwise a class needs more feature pixels
            than this in an image to be contrasted there, so small inputs want a small value.
        min_pixels: fewest feature pixels of a class in an image to be contrasted there; None for more than `max_views`,
            as published. A small value keeps rare classes on small inputs without taking anchors from large ones.
        memory: keys that the anchors are contrasted with: `none` (the batch's anchors), or the memory bank's `region`
            or `pixel` rows, or `both`.
        region_size: region rows per class; None for one per training image, at most 5000.
        pixel_size: pixel rows per class; None for ten per training image, at most 50,000, or what fits into
            `bank_bytes_max` beside the region rows, but at least one per training image, at most 5000.
        pixels_per_region: pixels stored of each (image, class), at most.
        bank_bytes_max: largest memory bank that is accepted, in bytes.
        semi_hard: whether each anchor draws its keys from its hardest ones instead of taking the whole bank.
        positives_per_anchor: positives drawn per anchor when `semi_hard`.
        negatives_per_anchor: negatives drawn per anchor when `semi_hard`.
        hardest: share of the keys that counts as the hardest.
    """

    temperature: float = 0.1
    base_temperature: float = 0.07
    max_samples: int = 1024
    max_views: int = 100
    min_pixels: int | None = None
    memory: Literal["none", "region", "pixel", "both"] = "none"
    region_size: int | None = None
    pixel_size: int | None = None
    pixels_per_region: int = 10
    bank_bytes_max: int = 2**30
    semi_hard: bool = False
    positives_per_anchor: int = 1024
    negatives_per_anchor: int = 2048
    hardest: float = 0.1

    def check(self, require: Require) -> None:
        """See `TermConfig.check`."""
        super().check(require)
        for name in ("temperature", "base_temperature"):
            require(getattr(self, name) > 0, f"{name}: expected above 0, got {getattr(self, name)}")
        sizes = ["max_samples", "max_views", "pixels_per_region", "positives_per_anchor", "negatives_per_anchor"]
        sizes += [name for name in ("min_pixels", "region_size", "pixel_size") if getattr(self, name) is not None]
        for name in sizes:
            require(getattr(self, name) >= 1, f"{name}: expected at least 1, got {getattr(self, name)}")
        require(0 < self.hardest <= 1, f"hardest: expected above 0 and at most 1, got {self.hardest}")
        require(
            not self.semi_hard or self.memory != "none",
            "semi_hard: it selects from the memory bank; set memory to region, pixel or both as well",
        )


class PixelContrast(LossTerm):
    """Segmentation-aware anchors contrasted with each other across a batch, or with a bank of earlier images."""

    Config: ClassVar[type[PixelContrastConfig]] = PixelContrastConfig
    taps: ClassVar[Taps] = Taps.HEAD_INPUT
    takes_unreliable: ClassVar[bool] = True
    config: PixelContrastConfig

    def __init__(
        self, config: PixelContrastConfig, *, num_classes: int, ignore_index: int, training_images: int
    ) -> None:
        super().__init__(config, num_classes=num_classes, ignore_index=ignore_index, training_images=training_images)
        self.bank = None if config.memory == "none" else self._build_bank(config)

    def _build_bank(self, config: PixelContrastConfig) -> MemoryBank:
        default = max(1, min(self.training_images, DEFAULT_BANK_ROWS))
        row_bytes = self.num_classes * config.embedding_dim * torch.float32.itemsize
        region = 0 if config.memory == "pixel" else config.region_size or default
        fitting = config.bank_bytes_max // row_bytes - region
        longest = max(default, min(_PIXELS_PER_REGION_ROW * default, fitting))
        pixel = 0 if config.memory == "region" else config.pixel_size or longest
        size = (region + pixel) * row_bytes
        if size > config.bank_bytes_max:
            raise UserError(
                f"memory bank: {self.num_classes} classes x ({region} region + {pixel} pixel) rows x "
                f"{config.embedding_dim} x 4 bytes = {size / 2**20:.0f} MiB, more than bank_bytes_max = "
                f"{config.bank_bytes_max / 2**20:.0f} MiB; lower region_size or pixel_size, or raise bank_bytes_max"
            )
        return MemoryBank(
            self.num_classes, config.embedding_dim, region, pixel, pixels_per_region=config.pixels_per_region
        )

    def forward(
        self,
        output: TraineeOutput,
        labels: Tensor,
        *,
        heads: nn.ModuleDict,
        generator: torch.Generator,
        unreliable: Unreliable | None = None,
    ) -> TermOutput:
        """InfoNCE of the sampled anchors; with a memory bank, the batch is enqueued afterwards.

        Pixels that are `unreliable` join the negatives, of the classes that they are trusted not to be. They are no
        anchors and do not enter the bank: their labels are `ignore_index`.

        Statistics: `anchors`, `hard_share` (of the anchors), `class_share` (of the classes present, those that have an
        anchor), `alignment` and `uniformity` of the anchors; with a bank its `bank_fill` in [0,1].
        """
        (embeddings,) = output.embeddings
        height, width = embeddings.shape[-2:]
        labels = nearest(labels, (height, width))
        labels = labels.where(labels != self.ignore_index, NO_CLASS)
        anchors, views = sample_views(
            labels,
            nearest(predicted_classes(output.logits.main), (height, width)),
            max_samples=self.config.max_samples,
            max_views=self.config.max_views,
            min_pixels=self.config.min_pixels,
            ignore_index=NO_CLASS,
            generator=generator,
        )
        own_rows = embeddings_at(embeddings, anchors.image, anchors.pixel)
        rows, anchor_labels = gather_rows(own_rows, anchors.counts), gather_rows(anchors.label, anchors.counts)
        statistics = {
            "anchors": torch.full((), float(len(rows)), device=labels.device),
            "hard_share": sum_over_ranks(anchors.hard.sum()) / max(1, len(rows)),
            "class_share": class_share(anchor_labels, labels, num_classes=self.num_classes),
            **alignment_and_uniformity(rows, anchor_labels),
        }
        if unreliable is not None:
            loss = self._contrast_with_unreliable(embeddings, rows, anchor_labels, unreliable, generator)
        elif self.bank is None:
            loss = self._contrast_anchors(own_rows, anchors, rows, anchor_labels)
        elif self.config.semi_hard:  # whose draws are those of all anchors
            loss = self._contrast_semi_hard(self.bank, rows, anchor_labels, generator)
        else:
            loss = self._contrast_with(self.bank, own_rows, anchors, len(labels) * views)
        if self.bank is not None:
            with torch.no_grad():  # the bank remembers values: no gradient is wanted of a projection everywhere
                self.bank.enqueue(embedding_map(embeddings), labels, generator=generator)
            statistics["bank_fill"] = self.bank.rings.fill()
        return TermOutput(loss=loss, statistics=statistics)

    def _contrast_with_unreliable(
        self,
        embeddings: Tensor | Unprojected,
        rows: Tensor,
        anchor_labels: Tensor,
        unreliable: Unreliable,
        generator: torch.Generator,
    ) -> Tensor:
        keys, key_labels = None, None
        if self.bank is not None:
            classes = torch.arange(self.num_classes, device=rows.device)
            rings = self.bank.rings
            keys, key_labels = rings.rows.flatten(0, 1), classes.where(rings.valid(), NO_CLASS).flatten()
        negatives, negative_of = sample_unreliable(embeddings, unreliable, generator)
        return info_nce_with_unreliable(
            rows,
            anchor_labels,
            keys,
            key_labels,
            negatives,
            negative_of,
            temperature=self.config.temperature,
            base_temperature=self.config.base_temperature,
        )

    def _contrast_anchors(self, own_rows: Tensor, anchors: AnchorSample, rows: Tensor, labels: Tensor) -> Tensor:
        """Each rank contrasts its own anchors with those of all ranks."""
        contrast = functools.partial(
            info_nce, temperature=self.config.temperature, base_temperature=self.config.base_temperature
        )
        if world_size() == 1:
            return contrast(rows, labels)
        others = torch.ones(len(own_rows), len(rows), dtype=torch.bool, device=rows.device)
        others.diagonal(sum(anchors.counts[: own_rank()])).fill_(False)
        loss = contrast(own_rows, anchors.label, rows, labels, selection=others)
        of_class = torch.bincount(labels, minlength=self.num_classes)
        return mean_over_ranks(loss, (of_class[anchors.label] > 1).sum())

    def _contrast_with(self, bank: MemoryBank, rows: Tensor, anchors: AnchorSample, most_per_class: int) -> Tensor:
        """Each rank contrasts its own anchors: the bank is the same on all of them."""
        valid = bank.rings.valid()
        loss = info_nce_by_class(
            rows,
            anchors.label,
            bank.rings.rows,
            valid,
            temperature=self.config.temperature,
            base_temperature=self.config.base_temperature,
            most_per_class=most_per_class,
        )
        return mean_over_ranks(loss, valid.any(dim=0)[anchors.label].sum())

    def _contrast_semi_hard(
        self, bank: MemoryBank, rows: Tensor, anchor_labels: Tensor, generator: torch.Generator
    ) -> Tensor:
        config = self.config
        classes = torch.arange(self.num_classes, device=rows.device)
        selection = SemiHard(
            positives=config.positives_per_anchor,
            negatives=config.negatives_per_anchor,
            hardest=config.hardest,
            generator=generator,
            most_positives=len(bank.rings.rows),
        )
        return info_nce(
            rows,
            anchor_labels,
            bank.rings.rows.flatten(0, 1),
            classes.where(bank.rings.valid(), NO_CLASS).flatten(),
            temperature=config.temperature,
            base_temperature=config.base_temperature,
            selection=selection,
            chunk_bytes=_SELECTION_CHUNK_BYTES,
        )
