"""The memory bank of ContrastiveSeg: embeddings of earlier images as keys (Wang et al. 2021, section 3.2)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.shared.class_products import class_indicators, class_sums
from pipeline.losses.shared.distributed import gather_batch, own_part, world_size
from pipeline.losses.shared.groups import count_members
from pipeline.losses.shared.ring_buffer import ClassRings

_REGION, _PIXEL = 0, 1
_RANDOM_BITS = 30


class MemoryBank(nn.Module):
    """Two ring buffers per class: mean embeddings of (image, class) regions, and single pixels.

    Both lie in `rings`. Nothing in them has a gradient. They belong in a training checkpoint and never in what ships.

    Args:
        num_classes: number of classes C.
        dim: D of the embeddings.
        region_size: regions kept per class.
        pixel_size: pixels kept per class.
        pixels_per_region: pixels written of each (image, class), at most (K).
    """

    def __init__(
        self, num_classes: int, dim: int, region_size: int, pixel_size: int, *, pixels_per_region: int = 10
    ) -> None:
        super().__init__()
        self.rings = ClassRings((region_size, pixel_size), num_classes, dim)
        self.num_classes = num_classes
        self.pixels_per_region = pixels_per_region

    def keys(self, mode: Literal["pixel", "region", "both"] = "both") -> tuple[Tensor, Tensor]:
        """Every row written so far; rows never written are left out.

        How many there are is asked of the device; inside a training step use `rings.rows` and `rings.valid()` instead.

        Returns:
            Keys `[M,D]` float and their labels `[M]` int64.

        Raises:
            ValueError: `mode` is none of the three.
        """
        region_size = self.rings.sizes[_REGION]
        slots = {"region": slice(0, region_size), "pixel": slice(region_size, None), "both": slice(None)}
        if mode not in slots:
            raise ValueError(f"mode: expected pixel, region or both, got {mode!r}")
        valid = self.rings.valid()[slots[mode]]
        labels = torch.arange(self.num_classes, device=valid.device).expand_as(valid)
        return self.rings.rows[slots[mode]][valid], labels[valid]

    @torch.no_grad()
    def enqueue(self, embeddings: Tensor, labels: Tensor, *, generator: torch.Generator) -> None:
        """Write the batch: one region per (image, class), and up to K random pixels of it.

        In distributed training every rank writes what all ranks gathered, so that the banks stay identical.

        Args:
            embeddings: `[B,D,h,w]` float, unit norm over D.
            labels: `[B,h,w]` int64 at the same resolution; what is not in [0,C) belongs to no class.
            generator: source of the random choice, on the device of `labels`.

        Raises:
            ValueError: embeddings and labels differ in resolution or batch size.
        """
        if embeddings.shape[-2:] != labels.shape[-2:] or len(embeddings) != len(labels):
            raise ValueError(
                "embeddings and labels: expected one batch at one resolution, [B,D,h,w] and [B,h,w], "
                f"got {list(embeddings.shape)} and {list(labels.shape)}"
            )
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.detach()
            if self.rings.sizes[_REGION]:
                wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
                indicators = class_indicators(labels, self.num_classes, wide.dtype)
                means = F.normalize(class_sums(wide, indicators), dim=2)
                present = indicators.amax(dim=2).long()
                self.rings.write(_REGION, gather_batch(means[:, :, None]), gather_batch(present))
            if self.rings.sizes[_PIXEL]:
                rows, counts = self._random_pixels(embeddings, labels, generator)
                self.rings.write(_PIXEL, gather_batch(rows), gather_batch(counts))

    def _random_pixels(self, embeddings: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Up to K random pixels of each (image, class): `[B,C,K,D]`, of which the first `[B,C]` count."""
        images, classes = len(labels), self.num_classes
        labels = labels.flatten(1)
        grouped = (labels >= 0) & (labels < classes)
        group = torch.arange(images, device=labels.device)[:, None] * classes + labels
        group = group.where(grouped, images * classes).flatten()
        drawn = (world_size() * len(group),)
        random = own_part(torch.randint(2**_RANDOM_BITS, drawn, generator=generator, device=group.device))
        order = (group << _RANDOM_BITS | random).argsort()
        sizes = count_members(group, grouped.flatten(), images * classes + 1)[:-1]
        start = (sizes.cumsum(0) - sizes).reshape(images, classes, 1)
        rank = torch.arange(self.pixels_per_region, device=group.device)
        # a position beyond the group names some other pixel; its row is not counted
        index = order[(start + rank).clamp(max=len(order) - 1)]
        rows = embeddings.flatten(2)[index // labels.shape[1], :, index % labels.shape[1]]
        return rows, sizes.reshape(images, classes).clamp(max=self.pixels_per_region)
