"""The published algorithm of pixel contrast as it was published, for comparison: Python loops over images and classes.

Written from the description of Wang et al. (ICCV 2021): groups are found one by one with `nonzero`, each group's
anchors are read by indexing the whole feature map (whose backward pass fills one map of zeros per group), and the loss
is autograd over the whole matrix of similarities. Nothing of the pipeline uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_group_contrast(
    embeddings: Tensor,
    labels: Tensor,
    predictions: Tensor,
    *,
    max_samples: int,
    max_views: int,
    temperature: float,
    base_temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Pixel contrast within a batch, group by group.

    Args:
        embeddings: `[B,D,h,w]` float, unit norm over D.
        labels: `[B,h,w]` int64, 255 ignored.
        predictions: `[B,h,w]` int64.
        max_samples: most anchors in all.
        max_views: most anchors per group.
        temperature: tau.
        base_temperature: tau_base.
        generator: source of the random choice.
    """
    rows = embeddings.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
    labels, predictions = labels.flatten(1), predictions.flatten(1)
    groups = [
        (image, label)
        for image in range(len(rows))
        for label in range(int(labels.where(labels != 255, -1).max()) + 1)
        if label != 255 and int((labels[image] == label).sum()) > max_views
    ]
    if not groups:
        return embeddings.sum() * 0
    views = min(max_samples // len(groups), max_views)
    anchors, anchor_labels = [], []
    for image, label in groups:
        hard = ((labels[image] == label) & (predictions[image] != label)).nonzero().flatten()
        easy = ((labels[image] == label) & (predictions[image] == label)).nonzero().flatten()
        hard_kept = min(len(hard), views // 2)
        hard_kept = max(hard_kept, views - len(easy))
        kept = torch.cat(
            [
                hard[torch.randperm(len(hard), generator=generator)[:hard_kept]],
                easy[torch.randperm(len(easy), generator=generator)[: views - hard_kept]],
            ]
        )
        anchors.append(rows[image, kept])
        anchor_labels.append(torch.full((views,), label))
    contrast, owners = torch.cat(anchors), torch.cat(anchor_labels)
    logits = contrast @ contrast.T / temperature
    logits = logits - logits.amax(dim=1, keepdim=True).detach()
    same = (owners[:, None] == owners).to(logits.dtype)
    negatives = (logits.exp() * (1 - same)).sum(dim=1, keepdim=True)
    positives = same * (1 - torch.eye(len(same)))
    log_probability = logits - (logits.exp() + negatives).log()
    mean = (positives * log_probability).sum(dim=1) / positives.sum(dim=1)
    return -(temperature / base_temperature) * mean.mean()
