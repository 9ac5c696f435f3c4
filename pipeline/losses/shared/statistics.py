"""What is logged of the embeddings, since the value of a contrastive loss says little by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.losses.shared.distributed import largest_over_ranks

# Rows compared pairwise: enough for a steady estimate, few enough to cost nothing beside the loss.
MAX_ROWS = 256


def alignment_and_uniformity(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """How close embeddings of one class lie, and how evenly all of them cover the sphere (Wang and Isola 2020).

    alignment = mean over pairs of one class of |x - y|^2 (0: collapsed to a point, 2: unrelated);
    uniformity = log of the mean over all pairs of exp(-2 |x - y|^2) (0: collapsed, about -4: uniform on the sphere).
    At most `MAX_ROWS` evenly spaced rows are used. Each is 0 when there is no such pair.

    Args:
        embeddings: `[N,D]` float, unit norm.
        labels: `[N]` integers; rows with a negative label are left out.

    Returns:
        `alignment` and `uniformity`, detached 0-d float32.
    """
    step = max(1, -(-len(labels) // MAX_ROWS))
    rows, labels = embeddings.detach()[::step].float(), labels[::step]
    with torch.autocast(rows.device.type, enabled=False):
        distances = (2 - 2 * rows @ rows.T).clamp(min=0)
    pairs = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device) & (labels >= 0) & (labels >= 0)[:, None]
    same = pairs & (labels[:, None] == labels)
    alignment = distances.where(same, 0).sum() / same.sum().clamp(min=1)
    potential = (-2 * distances).exp().where(pairs, 0).sum()
    number = pairs.sum()
    # without a pair the sum is 0 as well: log 1
    uniformity = (potential.where(number > 0, 1) / number.clamp(min=1)).log()
    return {"alignment": alignment, "uniformity": uniformity}


def class_share(anchor_labels: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Share of the classes present in a batch that have an anchor: detached 0-d float32; 0 when no class is present.

    Args:
        anchor_labels: `[N]` int64 in [0, num_classes), those of all ranks.
        labels: this rank's, any shape, int64; what is not in [0, num_classes) is ignored.
        num_classes: number of classes C.
    """
    present = torch.zeros(num_classes + 1, device=labels.device)
    anchored = present.clone()
    inside = (labels >= 0) & (labels < num_classes)
    present[labels.where(inside, num_classes).flatten()] = 1
    anchored[anchor_labels] = 1
    present = largest_over_ranks(present)
    return anchored[:-1].sum() / present[:-1].sum().clamp(min=1)
