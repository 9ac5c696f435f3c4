"""Contrast between the pixels of one layer and one representative anchor per class (Sung et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.losses.boundary import boundary_aware_negatives
from pipeline.losses.class_sums import class_indicators, class_sums
from pipeline.losses.distributed import sum_over_ranks
from pipeline.losses.groups import runs
from pipeline.losses.info_nce import info_nce_of_similarities
from pipeline.losses.resolution import NO_CLASS

_RANDOM_BITS = 30


@dataclass(frozen=True)
class Layer:
    """One tapped layer of a batch.

    Attributes:
        embeddings: `[B,D,h,w]` float32 or float64, unit norm over D.
        labels: `[B,h,w]` int64 at the layer's resolution, `NO_CLASS` outside every class.
        predictions: `[B,h,w]` int64, the final prediction at the layer's resolution.
    """

    embeddings: Tensor
    labels: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class ClassAnchors:
    """One representative per class.

    Attributes:
        means: `[C,D]`, mean embedding of the class's pixels, not normalised; 0 for absent classes.
        present: `[C]` bool.
    """

    means: Tensor
    present: Tensor


@dataclass(frozen=True)
class PixelAnchorTerm:
    """The loss of one layer.

    Attributes:
        loss: scalar, the mean over anchors.
        anchored: `[C]` bool, classes whose anchor has a positive.
        boundary_pixels: 0-d int64, pixels selected by boundary-aware sampling.
        filled: 0-d int64, anchors whose negatives are random pixels for want of boundary-aware ones.
    """

    loss: Tensor
    anchored: Tensor
    boundary_pixels: Tensor
    filled: Tensor


def class_anchors(layer: Layer, num_classes: int) -> ClassAnchors:
    """Mean embedding of every class over the mini-batch of all ranks; the gradient flows through it.

    Args:
        layer: one tapped layer.
        num_classes: number of classes C.
    """
    indicators = class_indicators(layer.labels, num_classes, layer.embeddings.dtype)
    sums = sum_over_ranks(class_sums(layer.embeddings, indicators).sum(0))
    counts = sum_over_ranks(indicators.sum((0, 2)))
    return ClassAnchors(sums / counts.clamp(min=1)[:, None], counts > 0)


def pixel_anchor_term(
    layer: Layer,
    anchors: Tensor,
    *,
    temperature: float,
    positives_per_class: int,
    boundary_fraction: float,
    negatives: Literal["others", "predicted"],
    generator: torch.Generator,
) -> PixelAnchorTerm:
    """InfoNCE of every class's anchor against the layer's pixels (Sung et al. 2024, eq. 4 to 7).

    Positives of an anchor: pixels of its class, at most `positives_per_class` at random. Negatives: boundary-aware
    pixels of the other classes, or of those only the ones mistaken for the anchor's class (`predicted`). An anchor
    left without negatives takes the sampled pixels of the other classes.

    All anchors meet all pixels in one matrix product, and masks decide who plays which role: cheaper than gathering
    pixels whose number only the device knows, since classes are few.

    Args:
        layer: one tapped layer.
        anchors: `[C,D]`, unit norm over D.
        temperature: tau, above 0.
        positives_per_class: most positives per anchor.
        boundary_fraction: share of each error region that is selected.
        negatives: role of the selected pixels.
        generator: source of the random choice, on the device of the labels.
    """
    labels, predictions = layer.labels.flatten(), layer.predictions.flatten()
    classes = torch.arange(len(anchors), device=labels.device)[:, None]
    own = labels == classes
    others = (labels != NO_CLASS) & ~own
    sampled = sample_per_class(labels, positives_per_class, generator)
    boundary = boundary_aware_negatives(
        layer.labels, layer.predictions, fraction=boundary_fraction, ignore_index=NO_CLASS
    ).flatten()
    against = others & boundary
    if negatives == "predicted":
        against &= predictions == classes
    lacking = ~against.any(dim=1, keepdim=True)
    against = torch.where(lacking, others & sampled, against)
    positives = own & sampled
    anchored = positives.any(dim=1)
    # [B,C,h*w] in the layout of the embeddings, then one row per anchor
    similarities = (anchors / temperature) @ layer.embeddings.flatten(2)
    loss = info_nce_of_similarities(similarities.transpose(0, 1).reshape(len(anchors), -1), positives, against)
    return PixelAnchorTerm(loss, anchored, boundary.sum(), (lacking.squeeze(1) & anchored).sum())


def sample_per_class(labels: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Choose at most `most` pixels of every class at random, without replacement.

    Args:
        labels: `[P]` int64, negative outside every class.
        most: most pixels per class.
        generator: source of the random choice, on the device of `labels`.

    Returns:
        `[P]` bool.
    """
    random = torch.randint(2**_RANDOM_BITS, labels.shape, generator=generator, device=labels.device)
    key, order = (labels << _RANDOM_BITS | random).sort()
    group = runs(key >> _RANDOM_BITS)
    position = torch.arange(len(labels), device=labels.device)
    start = torch.full_like(labels, len(labels)).scatter_reduce_(0, group, position, "amin")
    chosen = (position - start[group] < most) & (key >= 0)
    return torch.zeros_like(chosen).scatter_(0, order, chosen)
