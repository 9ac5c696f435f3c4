"""Labels and predictions brought to the resolution of the embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Label of what belongs to no class in the methods' own maps: whatever number a dataset ignores, no class has this one.
NO_CLASS = -1


def nearest(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map of class indices to `size` by nearest neighbour.

    Each output cell takes the input pixel nearest to the cell's centre (`nearest-exact` of `F.interpolate`): logits
    are upsampled with `align_corners=False`, which places them at those centres too. Taking the cell's first pixel
    instead (`nearest`) would shift labels against logits by half a cell, 15 pixels at stride 32, and every boundary
    with them. Works on integers directly, so that no index is ever rounded through a float.

    Args:
        classes: `[B,H,W]`, any dtype.
        size: `(h, w)`.

    Returns:
        `[B,h,w]` of the same dtype.

    Example:
        >>> nearest(torch.arange(6)[None, None], (1, 2))
        tensor([[[1, 4]]])
    """
    for dimension, wanted in zip((-2, -1), size, strict=True):
        given = classes.shape[dimension]
        if given % wanted == 0:  # the formula below, as a view
            step = given // wanted
            classes = classes[..., step // 2 :: step] if dimension == -1 else classes[..., step // 2 :: step, :]
        else:
            cells = torch.arange(wanted, device=classes.device)
            # floor((i + 1/2) * given / wanted) in exact integers
            classes = classes.index_select(dimension, (2 * cells + 1) * given // (2 * wanted))
    return classes


def majority(classes: Tensor, size: tuple[int, int], *, num_classes: int, purity: float) -> Tensor:
    """The class that most pixels of each output cell have, where they are enough of the cell.

    A coarse cell holds several classes, and the pixel at its centre says little about it: at stride 32 hardly a cell
    whose centre lies on a pole has more pole than anything else. Of classes with as many pixels the lowest wins.

    Args:
        classes: `[B,H,W]` int64; what is not in [0, num_classes) belongs to no class, but to the cell all the same.
        size: `(h, w)`, at most `(H, W)`.
        num_classes: number of classes C.
        purity: least share of a cell's pixels that its class has to have, in [0,1].

    Returns:
        `[B,h,w]` int64, `NO_CLASS` where no class has that share, or none a pixel.
    """
    images, height, width = classes.shape
    rows = torch.arange(height, device=classes.device) * size[0] // height
    columns = torch.arange(width, device=classes.device) * size[1] // width
    cell = (rows[:, None] * size[1] + columns).flatten()
    flat = classes.flatten(1)
    inside = (flat >= 0) & (flat < num_classes)
    cells = size[0] * size[1]
    position = cell * (num_classes + 1) + flat.where(inside, num_classes)
    counts = torch.zeros(images, cells * (num_classes + 1), dtype=torch.int64, device=classes.device)
    counts = counts.scatter_add_(1, position, torch.ones_like(position)).view(images, cells, num_classes + 1)
    total = counts.sum(2)
    # One maximum over count and class together: which of two equal counts `max` would name is not laid down.
    ranked = counts[:, :, :-1] * num_classes + torch.arange(num_classes - 1, -1, -1, device=classes.device)
    best = ranked.amax(2)
    count, found = best // num_classes, num_classes - 1 - best % num_classes
    pure = (count > 0) & (count >= purity * total)
    return found.where(pure, NO_CLASS).view(images, *size)


def log_probabilities_at(logits: Tensor, labels: Tensor) -> Tensor:
    """Log softmax of logits `[B,C,h,w]` at the resolution of labels `[B,H,W]`: `[B,C,H,W]`, float32 or wider."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return F.log_softmax(logits, dim=1)


def predicted_classes(logits: Tensor) -> Tensor:
    """Class of the largest logit.

    Args:
        logits: `[B,C,h,w]` float.

    Returns:
        `[B,h,w]` int64.
    """
    # max gives the same indices as argmax and is 2.5 times faster over a strided dimension on a CPU
    return logits.detach().max(dim=1).indices
