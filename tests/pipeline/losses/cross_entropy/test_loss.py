"""The baseline."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.losses.cross_entropy.loss import CrossEntropy, CrossEntropyConfig
from pipeline.models.network.head import Logits, Taps, TraineeOutput


def test_the_baseline_adds_nothing() -> None:
    output, labels = TraineeOutput(Logits(torch.randn(2, 3, 4, 5))), torch.zeros(2, 8, 10, dtype=torch.int64)
    term = CrossEntropy(CrossEntropyConfig(), num_classes=3, ignore_index=255, training_images=5)
    added = term(output, labels, heads=nn.ModuleDict(), generator=torch.Generator())
    assert CrossEntropy.taps is Taps.NONE
    assert added.loss.item() == 0
    assert added.statistics["anchors"].item() == 0
    assert len(term.build_heads(4)) == 0
    assert not list(term.parameters())
