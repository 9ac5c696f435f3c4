"""What the network is given in training."""

from __future__ import annotations

import torch

from pipeline.training.inputs import pad_to_stride


def test_crops_are_padded_to_the_stride_where_the_padding_counts_nowhere() -> None:
    images, labels = torch.rand(2, 3, 36, 50) + 1, torch.ones(2, 36, 50, dtype=torch.long)
    padded, padded_labels = pad_to_stride(images, labels, stride=32, ignore_index=255)
    assert padded.shape == (2, 3, 64, 64)
    assert torch.equal(padded[..., :36, :50], images)
    assert padded[..., 36:, :].abs().max() == 0
    assert (padded_labels == 255).sum() == 2 * (64 * 64 - 36 * 50)
    assert pad_to_stride(padded, padded_labels, stride=32, ignore_index=255)[0] is padded
