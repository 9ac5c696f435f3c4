"""Contrast between the pixels of every layer and one representative anchor per class (Sung et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pipeline.losses.shared.boundary import boundary_aware_negatives
from pipeline.losses.shared.class_products import EmbeddingMap, class_indicators
from pipeline.losses.shared.distributed import any_over_ranks, gather_batch, own_part, sum_over_ranks, world_size
from pipeline.losses.shared.groups import count_members, runs
from pipeline.losses.shared.resolution import NO_CLASS
from pipeline.losses.shared.row_contrast import info_nce_of_similarities

_RANDOM_BITS = 30


@dataclass(frozen=True)
class Layer:
    """One tapped layer of a batch.

    Attributes:
        pixels: the embeddings `[B,D,h,w]`, float32 or float64, unit norm over D.
        labels: `[B,h,w]` int64 at the layer's resolution, `NO_CLASS` outside every class.
        predictions: `[B,h,w]` int64, the final prediction at the layer's resolution.
    """

    pixels: EmbeddingMap
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


class Roles(NamedTuple):
    """What every pixel of every layer is to every class's anchor; pixels of all layers one after the other.

    Attributes:
        positives: `[C,P]` bool, sampled pixels of the class.
        boundary: `[C,P]` bool, boundary-aware negatives.
        fallback: `[C,P]` bool, sampled pixels of the other classes.
        boundary_pixels: 0-d int64, how many pixels boundary-aware sampling selected, over all ranks.
    """

    positives: Tensor
    boundary: Tensor
    fallback: Tensor
    boundary_pixels: Tensor


@dataclass(frozen=True)
class PixelAnchorTerm:
    """The loss of one layer.

    Attributes:
        loss: scalar, the mean over anchors.
        anchored: `[C]` bool, classes whose anchor has a positive.
        filled: `[C]` bool, those of them whose negatives are random pixels for want of boundary-aware ones.
    """

    loss: Tensor
    anchored: Tensor
    filled: Tensor


def class_anchors(layer: Layer, num_classes: int) -> ClassAnchors:
    """Mean embedding of every class over the mini-batch of all ranks; the gradient flows through it.

    Args:
        layer: one tapped layer.
        num_classes: number of classes C.
    """
    indicators = class_indicators(layer.labels, num_classes, layer.pixels.values.dtype)
    sums = sum_over_ranks(layer.pixels.class_sums(indicators).sum(0))
    counts = sum_over_ranks(indicators.sum((0, 2)))
    return ClassAnchors(sums / counts.clamp(min=1)[:, None], counts > 0)


def pixel_roles(
    layers: Sequence[Layer],
    num_classes: int,
    *,
    positives_per_class: int,
    boundary_fraction: float,
    negatives: Literal["others", "predicted"],
    generator: torch.Generator,
) -> Roles:
    """Who contrasts with whom, for all layers at once: the number of operations does not grow with the layers.

    Args:
        layers: the tapped layers.
        num_classes: number of classes C.
        positives_per_class: most positives per class and layer over all ranks, chosen at random.
        boundary_fraction: share of each error region that is selected, nearest to its edge first.
        negatives: whose negatives the selected pixels are: of the anchors of all other classes (`others`), or of the
            wrongly predicted class's alone (`predicted`).
        generator: source of the random choice, on the device of the labels.
    """
    labels = torch.cat([layer.labels.flatten() for layer in layers])
    predictions = torch.cat([layer.predictions.flatten() for layer in layers])
    lengths = [layer.labels.numel() for layer in layers]
    group = torch.cat([layer.labels.flatten() + i * num_classes for i, layer in enumerate(layers)])
    random = _draws(lengths, generator)
    sampled = sample_per_group(group.where(labels != NO_CLASS, NO_CLASS), positives_per_class, random)
    selected = _boundary_of_all(layers, boundary_fraction)
    assert len(selected) == sum(lengths)
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    own = labels == classes
    others = (labels != NO_CLASS) & ~own
    of_class = predictions == classes if negatives == "predicted" else others
    return Roles(own & sampled, others & selected & of_class, others & sampled, sum_over_ranks(selected.sum()))


def _draws(lengths: Sequence[int], generator: torch.Generator) -> Tensor:
    """A random number for each of this rank's pixels, layer by layer: `[P]` int64, its part of those of all ranks."""
    ranks = world_size()
    random = torch.randint(2**_RANDOM_BITS, (ranks * sum(lengths),), generator=generator, device=generator.device)
    of_layers = torch.split(random, [ranks * length for length in lengths])
    return torch.cat([own_part(part) for part in of_layers])


def _boundary_of_all(layers: Sequence[Layer], fraction: float) -> Tensor:
    """Boundary-aware negatives of every layer, `[P]` bool, from maps laid into the corners of one large enough.

    What surrounds a smaller map belongs to no region, exactly as what lies outside an image: the selection is the same.
    """
    images = len(layers[0].labels)
    height = max(layer.labels.shape[1] for layer in layers)
    width = max(layer.labels.shape[2] for layer in layers)
    labels = layers[0].labels.new_full((len(layers), images, height, width), NO_CLASS)
    predictions = labels.clone()
    for i, layer in enumerate(layers):
        corner = (i, slice(None), slice(layer.labels.shape[1]), slice(layer.labels.shape[2]))
        labels[corner] = layer.labels
        predictions[corner] = layer.predictions
    selected = boundary_aware_negatives(
        labels.flatten(0, 1), predictions.flatten(0, 1), fraction=fraction, ignore_index=NO_CLASS
    ).view_as(labels)
    return torch.cat(
        [selected[i, :, : layer.labels.shape[1], : layer.labels.shape[2]].flatten() for i, layer in enumerate(layers)]
    )


def sample_per_group(group: Tensor, most: int, random: Tensor) -> Tensor:
    """Choose at most `most` entries of every group, over all ranks: those with the lowest numbers.

    Args:
        group: `[P]` int64, negative outside every group.
        most: most entries per group.
        random: `[P]` int64 in [0, 2^30).

    Returns:
        `[P]` bool.
    """
    key, order = gather_batch(group << _RANDOM_BITS | random).sort()
    run = runs(key >> _RANDOM_BITS)
    size = count_members(run, torch.ones_like(run), len(run))
    rank = torch.arange(len(run), device=run.device) - (size.cumsum(0) - size)[run]
    chosen = (rank < most) & (key >= 0)
    return own_part(torch.empty_like(chosen).scatter_(0, order, chosen))


def pixel_anchor_terms(
    layers: Sequence[Layer], anchors: Sequence[Tensor], roles: Roles, *, temperature: float
) -> list[PixelAnchorTerm]:
    """InfoNCE of every layer's anchors against that layer's pixels (Sung et al. 2024, eq. 4 to 7).

    All anchors of a layer meet all its pixels in one matrix product and masks say who plays which role: cheaper than
    gathering pixels whose number only the device knows, since classes are few. An anchor that no boundary-aware
    negative stands against takes the sampled pixels of the other classes.

    Args:
        layers: the tapped layers.
        anchors: for each layer `[C,D]`, unit norm over D.
        roles: of the pixels.
        temperature: tau, above 0.
    """
    terms = []
    start = 0
    for layer, vectors in zip(layers, anchors, strict=True):
        columns = slice(start, start + layer.labels.numel())
        start = columns.stop
        positives, negatives = roles.positives[:, columns], roles.boundary[:, columns]
        lacking = ~any_over_ranks(negatives.any(dim=1))
        negatives = torch.where(lacking[:, None], roles.fallback[:, columns], negatives)
        similarities = layer.pixels.class_similarities(vectors / temperature)
        loss = info_nce_of_similarities(similarities, positives, negatives)
        anchored = any_over_ranks(positives.any(dim=1))
        terms.append(PixelAnchorTerm(loss, anchored, lacking & anchored))
    return terms
