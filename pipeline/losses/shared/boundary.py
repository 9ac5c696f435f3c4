"""Boundary-aware negatives: wrongly predicted pixels near the edge of their error region (Contextrast's BANE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.shared.groups import count_members, runs

_NO_REGION = -1
_CLASS_BITS = 16
_DISTANCE_BITS = 32


def boundary_aware_negatives(labels: Tensor, predictions: Tensor, *, fraction: float, ignore_index: int) -> Tensor:
    """Select, per image and class, the wrongly predicted pixels nearest to the edge of their region.

    B^n = (label == n) and (prediction != n). Its edge pixels have a 4-neighbour outside B^n or outside the image; D is
    the Euclidean distance to the nearest edge pixel of B^n. The first ceil(fraction * |B^n|) pixels by (D, row-major
    index) are selected (Sung et al. 2024, section 3.3).

    Args:
        labels: `[B,h,w]` integers; classes are 0 to 65535, negative labels are ignored as `ignore_index` is.
        predictions: `[B,h,w]` integers, the predicted classes.
        fraction: share of each B^n to select, in [0,1].
        ignore_index: label outside every class.

    Returns:
        `[B,h,w]` bool.

    Raises:
        ValueError: the maps differ in shape, or `fraction` is outside [0,1].
    """
    if labels.ndim != 3 or labels.shape != predictions.shape:
        raise ValueError(
            "labels and predictions: expected one shape [B,h,w], "
            f"got {list(labels.shape)} and {list(predictions.shape)}"
        )
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected in [0,1], got {fraction}")
    if not labels.numel():
        return torch.zeros_like(labels, dtype=torch.bool)
    wrong = (labels != predictions) & (labels != ignore_index) & (labels >= 0)
    region = labels.long().where(wrong, _NO_REGION)
    distance = squared_distance_within(wrong & _is_edge(region)).long()

    # Row-major order breaks ties because the sort is stable.
    image = torch.arange(len(labels), device=labels.device)[:, None, None]
    key = (((image << _CLASS_BITS) | region) << _DISTANCE_BITS) | distance
    last = torch.iinfo(torch.int64).max
    key, order = key.where(wrong, last).flatten().sort(stable=True)
    group = runs(key >> _DISTANCE_BITS)
    size = count_members(group, key != last, len(group))
    rank = torch.arange(len(group), device=group.device) - (size.cumsum(0) - size)[group]
    selected = rank < (size.double() * fraction).ceil()[group]
    return torch.empty_like(selected).scatter_(0, order, selected).view(labels.shape)


def _is_edge(region: Tensor) -> Tensor:
    """Whether one of a pixel's 4 neighbours lies in another region or outside the image: `[B,h,w]` bool."""
    framed = F.pad(region, (1, 1, 1, 1), value=_NO_REGION - 1)
    inner = slice(1, -1)
    neighbours = (
        framed[:, :-2, inner],
        framed[:, 2:, inner],
        framed[:, inner, :-2],
        framed[:, inner, 2:],
    )
    edge = neighbours[0] != region
    for neighbour in neighbours[1:]:
        edge |= neighbour != region
    return edge


def squared_distance_within(edges: Tensor, reach: int | None = None) -> Tensor:
    """Squared Euclidean distance to the nearest edge pixel, exact inside regions whose edges are all given.

    One transform serves all classes at once although edges count for their own region only. Let p lie in region B and
    q outside B. A path of 4-neighbour steps from p to q that never moves away from q in x or y leaves B through an edge
    pixel e of B, and |e - p| < |q - p|: the nearest edge pixel of whatever region is one of p's own.

    The image's border is outside every region, so no pixel of one is further than r = (min(h,w) - 1) // 2 from an edge.
    A scan along each row gives the distance within the row; the lower envelope over at most r rows either way gives
    the distance in the plane. No step depends on the data: nothing is asked of the device. That is why it is by hand:
    scipy's transform would fetch every batch to the host.

    Args:
        edges: `[B,h,w]` bool.
        reach: distances up to this one are exact and the others above it, within and outside of regions; None for the
            r above.

    Returns:
        `[B,h,w]` float32, integers; with `reach` None meaningless outside the regions.
    """
    _, height, width = edges.shape
    reach = (min(height, width) - 1) // 2 if reach is None else reach
    far = reach + 1
    x = torch.arange(width, dtype=torch.float32, device=edges.device)
    left = x.where(edges, -torch.inf).cummax(dim=2).values
    right = x.where(edges, torch.inf).flip(2).cummin(dim=2).values.flip(2)
    in_row = torch.minimum(x - left, right - x).clamp(max=far).square()

    padded = F.pad(in_row, (0, 0, reach, reach), value=far**2)
    return _envelope_by_offset(padded, reach) if edges.device.type == "cpu" else _envelope_by_window(padded, reach)


def _envelope_by_offset(padded: Tensor, reach: int) -> Tensor:
    """Minimum over |d| <= reach of `padded[:, y + reach + d] + d^2`, one offset at a time: everything stays in cache.

    Args:
        padded: `[B,h + 2 reach,w]` float.
        reach: largest offset.

    Returns:
        `[B,h,w]`.
    """
    height = padded.shape[1] - 2 * reach
    lowest = padded[:, reach : reach + height].clone()
    shifted = torch.empty_like(lowest)
    for offset in range(1, reach + 1):
        above, below = reach - offset, reach + offset
        torch.minimum(padded[:, above : above + height], padded[:, below : below + height], out=shifted)
        torch.minimum(lowest, shifted.add_(offset**2), out=lowest)
    return lowest


def _envelope_by_window(padded: Tensor, reach: int, chunk_bytes: int = 64 * 2**20) -> Tensor:
    """The same in few operations over all offsets at once, for devices where every operation costs a launch."""
    images, rows, width = padded.shape
    offsets = torch.arange(-reach, reach + 1, dtype=padded.dtype, device=padded.device).square()[:, None, None]
    lowest = padded.new_empty(images, rows - 2 * reach, width)
    step = max(1, chunk_bytes // (images * width * len(offsets) * padded.itemsize))
    for start in range(0, lowest.shape[1], step):
        block = padded[:, start : start + step + 2 * reach]
        windows = block.unfold(1, len(offsets), 1).permute(0, 3, 1, 2)
        lowest[:, start : start + step] = (windows + offsets).amin(dim=1)
    return lowest
