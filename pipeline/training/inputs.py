"""What a network is given in training: normalised images, padded to its stride, in the layout that trains fastest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.network.segmentor import Segmentor


def network_input(segmentor: Segmentor, images: Tensor, labels: Tensor, *, ignore_index: int) -> tuple[Tensor, Tensor]:
    """A batch as the segmentor takes it, with labels of the same size.

    Args:
        segmentor: on the device of the batch.
        images: uint8 `[B,3,h,w]`.
        labels: int64 `[B,h,w]`.
        ignore_index: label of the padding.

    Returns:
        Images `[B,3,H,W]` float32 in channels_last, labels `[B,H,W]`; H and W are multiples of the stride.
    """
    normalised, labels = pad_to_stride(
        segmentor.normalise(images), labels, stride=segmentor.stride, ignore_index=ignore_index
    )
    return normalised.contiguous(memory_format=torch.channels_last), labels


def pad_to_stride(images: Tensor, labels: Tensor, *, stride: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Pad at the bottom and right to multiples of `stride`: the papers' 360x480 crops are not multiples of 32.

    Args:
        images: `[B,3,H,W]` normalised; padded with 0, the mean colour.
        labels: `[B,H,W]`; padded with `ignore_index`, so that the padding counts nowhere.
        stride: height and width become multiples of it.
        ignore_index: label outside every class.
    """
    height, width = labels.shape[-2:]
    padding = (0, -width % stride, 0, -height % stride)
    if not any(padding):
        return images, labels
    return F.pad(images, padding), F.pad(labels, padding, value=ignore_index)
