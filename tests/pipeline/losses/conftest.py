"""Slow, obvious references, written from the equations and from nothing else; and a counter of operations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def edges_of(inside: np.ndarray) -> np.ndarray:
    framed = np.pad(inside, 1)
    surrounded = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    return inside & ~surrounded


def slow_boundary_negatives(
    labels: np.ndarray, predictions: np.ndarray, fraction: float, ignore_index: int
) -> np.ndarray:
    """Boundary-aware negatives by definition: image by image and class by class, with scipy."""
    selected = np.zeros(labels.shape, dtype=bool)
    for image, label_map in enumerate(labels):
        for label in set(np.unique(label_map).tolist()) - {ignore_index}:
            inside = (label_map == label) & (predictions[image] != label)
            if not inside.any():
                continue
            squared = np.round(distance_transform_edt(~edges_of(inside)) ** 2).astype(int)
            pixels = np.flatnonzero(inside)
            pixels = pixels[np.lexsort((pixels, squared.ravel()[pixels]))]
            selected[image].ravel()[pixels[: math.ceil(fraction * len(pixels))]] = True
    return selected


def slow_info_nce(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor | None,
    key_labels: Tensor | None,
    temperature: float,
    base_temperature: float,
    selection: Tensor | None = None,
) -> Tensor:
    """InfoNCE by definition, one anchor and one positive at a time, left to autograd."""
    own = keys is None
    keys, key_labels = (anchors, anchor_labels) if own else (keys, key_labels)
    terms = []
    for r, anchor in enumerate(anchors):
        allowed = [
            k
            for k in range(len(keys))
            if not (own and k == r) and key_labels[k] >= 0 and (selection is None or selection[r, k])
        ]
        positives = [keys[k] for k in allowed if key_labels[k] == anchor_labels[r]]
        negatives = [keys[k] for k in allowed if key_labels[k] != anchor_labels[r]]
        if positives:
            terms.append(slow_term(anchor, positives, negatives, temperature))
    if not terms:
        return (anchors * 0).sum()
    return temperature / base_temperature * torch.stack(terms).mean()


def slow_term(anchor: Tensor, positives: list[Tensor], negatives: list[Tensor], temperature: float) -> Tensor:
    """One anchor's mean over its positives of -log[e^p / (e^p + sum of e^n)]."""
    against = [anchor @ negative / temperature for negative in negatives]
    terms = []
    for positive in positives:
        logit = anchor @ positive / temperature
        terms.append(torch.stack([logit, *against]).logsumexp(0) - logit)
    return torch.stack(terms).mean()


def slow_pixel_anchor_loss(
    embeddings: list[Tensor],
    labels: list[Tensor],
    predictions: list[Tensor],
    *,
    num_classes: int,
    ignore_index: int,
    temperature: float,
    layer_weights: list[float],
    local_weight: float,
    boundary_fraction: float,
    negatives: str,
) -> Tensor:
    """L_PA by definition when every pixel of a class is a positive; lists are shallow to deep, as the weights are."""

    def pixels_where(layer: int, mask: Tensor) -> list[Tensor]:
        return list(embeddings[layer].permute(0, 2, 3, 1)[mask])

    def mean_of(layer: int, label: int) -> Tensor | None:
        pixels = pixels_where(layer, labels[layer] == label)
        return torch.stack(pixels).mean(0) if pixels else None

    total = torch.stack([(layer * 0).sum() for layer in embeddings]).sum()
    for layer in range(len(embeddings)):
        boundary = torch.tensor(
            slow_boundary_negatives(labels[layer].numpy(), predictions[layer].numpy(), boundary_fraction, ignore_index)
        )
        terms = []
        for label in range(num_classes):
            anchor, deepest = mean_of(layer, label), mean_of(-1, label)
            if anchor is None:
                continue
            if deepest is not None:
                anchor = local_weight * anchor + (1 - local_weight) * deepest
            anchor = F.normalize(anchor, dim=0)
            others = (labels[layer] != label) & (labels[layer] != ignore_index)
            stricter = boundary & others
            if negatives == "predicted":
                stricter &= predictions[layer] == label
            against = pixels_where(layer, stricter) or pixels_where(layer, others)
            terms.append(slow_term(anchor, pixels_where(layer, labels[layer] == label), against, temperature))
        if terms:
            total = total + layer_weights[layer] * torch.stack(terms).mean()
    return total


class Operations(TorchDispatchMode):
    """Counts what reaches a device, and how often the host waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.waits: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        self.calls[name] += 1
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for arg in args
            if isinstance(arg, (list, tuple))
            for index in arg
        )
        if by_mask or name in {
            "_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim",
            "unique_consecutive", "equal", "is_nonzero", "argwhere",
        }:  # fmt: skip
            self.waits.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="session")
def operation_counter() -> type[Operations]:
    return Operations


@pytest.fixture(scope="session")
def reference_boundary_negatives() -> Callable[..., np.ndarray]:
    return slow_boundary_negatives


@pytest.fixture(scope="session")
def reference_edges() -> Callable[..., np.ndarray]:
    return edges_of


@pytest.fixture(scope="session")
def reference_info_nce() -> Callable[..., Tensor]:
    return slow_info_nce


@pytest.fixture(scope="session")
def reference_pixel_anchor_loss() -> Callable[..., Tensor]:
    return slow_pixel_anchor_loss
