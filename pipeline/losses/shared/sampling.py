"""Segmentation-aware anchor sampling: half of each group's anchors from pixels that the network gets wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import gather_batch, own_part, own_rank, world_size
from pipeline.losses.shared.groups import count_members, first_true, runs

# A 64-bit sort key holds, from the top: image (15 bits), class (16 bits), one bit for easy, random bits (30).
_CLASS_BITS = 16
_RANDOM_BITS = 30
_NO_GROUP = 2**63 - 1  # the key of ignored pixels: behind every group


@dataclass(frozen=True)
class AnchorSample:
    """Sampled anchors, one entry each, ordered by group.

    Attributes:
        image: `[N]` int64, index in the batch.
        pixel: `[N]` int64, flat index y * w + x in that image.
        label: `[N]` int64, the anchor's class.
        hard: `[N]` bool, whether the prediction there differs from the class.
        counts: how many anchors each rank of a distributed training sampled; N alone without one.
    """

    image: Tensor
    pixel: Tensor
    label: Tensor
    hard: Tensor
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.image)


def sample_anchors(
    labels: Tensor,
    predictions: Tensor,
    *,
    max_samples: int,
    max_views: int,
    ignore_index: int,
    generator: torch.Generator,
    min_pixels: int | None = None,
) -> AnchorSample:
    """Sample anchor pixels per (image, class), half of them hard (Wang et al. 2021, section 3.3).

    A group is an (image, class) with more than `max_views` labelled pixels, as published, or with at least
    `min_pixels`. Every group gives `min(max_samples // groups, max_views)` anchors, or all its pixels where it has
    fewer: half of them (floor) predicted wrongly, the others rightly; what one side lacks is taken from the other;
    without replacement. With more groups than `max_samples`, that many groups chosen at random give one anchor each.

    One sort on (image, class, easy, random) lays each group's pixels in a row, hard before easy, each part in random
    order; the rest is arithmetic on positions. How many groups and anchors there are reaches the host, and no more.

    In distributed training the maxima and the random choice are those of the global batch, and each rank samples the
    anchors of its own images.

    Args:
        labels: `[B,h,w]` integers; classes are 0 to 65535, negative labels are ignored as `ignore_index` is.
        predictions: `[B,h,w]` integers, the predicted classes.
        max_samples: most anchors in all, at least 1.
        max_views: most anchors per group, at least 1.
        ignore_index: label outside every class.
        generator: source of the random choice, on the device of `labels`.
        min_pixels: fewest pixels of a group, at least 1; None for one more than `max_views`.

    Raises:
        ValueError: the maps differ in shape, or a maximum or `min_pixels` is below 1.
    """
    return sample_views(
        labels,
        predictions,
        max_samples=max_samples,
        max_views=max_views,
        ignore_index=ignore_index,
        generator=generator,
        min_pixels=min_pixels,
    )[0]


def sample_views(
    labels: Tensor,
    predictions: Tensor,
    *,
    max_samples: int,
    max_views: int,
    ignore_index: int,
    generator: torch.Generator,
    min_pixels: int | None = None,
) -> tuple[AnchorSample, int]:
    """`sample_anchors`, and most anchors of a group: a bound on the anchors of a class that the host knows.

    Raises:
        ValueError: labels and predictions are not of one shape `[B,h,w]`, or a number is not positive.
    """
    if labels.ndim != 3 or labels.shape != predictions.shape:
        raise ValueError(
            "labels and predictions: expected one shape [B,h,w], "
            f"got {list(labels.shape)} and {list(predictions.shape)}"
        )
    if max_samples < 1 or max_views < 1:
        raise ValueError(f"max_samples and max_views: expected at least 1, got {max_samples} and {max_views}")
    if min_pixels is not None and min_pixels < 1:
        raise ValueError(f"min_pixels: expected at least 1, got {min_pixels}")
    images, pixels = len(labels), labels[0].numel() if len(labels) else 0
    labels, predictions = labels.reshape(images, pixels).long(), predictions.reshape(images, pixels)
    grouped = (labels != ignore_index) & (labels >= 0)
    image = torch.arange(images, device=labels.device)[:, None]
    easy = labels == predictions
    key = (((image << _CLASS_BITS) | labels) << 1 | easy) << _RANDOM_BITS
    drawn = (world_size() * images, pixels)
    key |= own_part(torch.randint(2**_RANDOM_BITS, drawn, generator=generator, device=labels.device))
    key, order = key.where(grouped, _NO_GROUP).flatten().sort()

    group = runs(key >> (_RANDOM_BITS + 1))
    size = count_members(group, key != _NO_GROUP, len(group))
    hard_size = count_members(group, (key >> _RANDOM_BITS) & 1 == 0, len(group))
    eligible = size >= (max_views + 1 if min_pixels is None else min_pixels)
    groups_of_ranks, counts = _totals(size, eligible, max_samples, max_views)
    groups = sum(groups_of_ranks)
    chosen = first_true(eligible, groups_of_ranks[own_rank()])
    if groups > max_samples:
        drawn_groups = torch.randperm(groups, generator=generator, device=labels.device)[:max_samples]
        own, counts = _own_groups(drawn_groups, groups_of_ranks)
        chosen = chosen[own]
    views = max(1, min(max_samples // max(1, groups), max_views))

    start, hard_size, size = (size.cumsum(0) - size)[chosen], hard_size[chosen], size[chosen]
    taken = size.clamp(max=views)
    hard_kept = hard_size.minimum(taken // 2).maximum(taken - (size - hard_size))
    end = taken.cumsum(0)
    place = torch.arange(counts[own_rank()], device=labels.device)
    owner = torch.searchsorted(end, place, right=True)  # whose anchor it is
    view = place - (end - taken)[owner]
    hard_kept = hard_kept[owner]
    hard = view < hard_kept
    rank = view.where(hard, view - hard_kept + hard_size[owner])
    index = order[start[owner] + rank]
    sample = AnchorSample(
        image=index // max(1, pixels),
        pixel=index % max(1, pixels),
        label=labels.flatten()[index],
        hard=hard,
        counts=counts,
    )
    return sample, views


def _totals(
    size: Tensor, eligible: Tensor, max_samples: int, max_views: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many groups of each rank are eligible, and how many anchors they give; the one host synchronisation.

    With more groups than samples, the anchors are those of all groups.

    Args:
        size: `[G]` int64, pixels of each group.
        eligible: `[G]` bool.
        max_samples: most anchors in all.
        max_views: most anchors per group.
    """
    groups = gather_batch(eligible.sum()[None])
    # The anchors per group, still on the device. With more groups than samples each of those chosen gives one.
    views = (max_samples // groups.sum().clamp(min=1)).clamp(min=1, max=max_views)
    anchors = gather_batch((size.minimum(views) * eligible).sum()[None])
    of_groups, of_anchors = torch.stack([groups, anchors]).tolist()
    return tuple(of_groups), tuple(of_anchors)


def _own_groups(drawn: Tensor, groups_of_ranks: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Which of this rank's groups are among those drawn of all ranks', and how many of each rank's are."""
    if len(groups_of_ranks) == 1:
        return drawn, (len(drawn),)
    ends = torch.tensor(groups_of_ranks, device=drawn.device).cumsum(0)
    owner = torch.searchsorted(ends, drawn, right=True)
    counts = torch.bincount(owner, minlength=len(groups_of_ranks)).tolist()
    return drawn[owner == own_rank()] - sum(groups_of_ranks[: own_rank()]), tuple(counts)
