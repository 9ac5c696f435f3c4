"""Semi-hard selection of keys."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses.shared.info_nce import Selected
from pipeline.losses.shared.semi_hard import SemiHard


def mask_of(selected: Selected, keys: int) -> Tensor:
    """`[n,keys]` bool; a key that counts twice is an error."""
    counts = torch.zeros(len(selected.position), keys).scatter_add_(1, selected.position, selected.chosen.float())
    assert counts.max() <= 1
    return counts > 0


@settings(deadline=None, max_examples=60)
@given(
    anchors=st.integers(1, 4),
    keys=st.integers(1, 60),
    classes=st.integers(1, 4),
    positives=st.integers(1, 8),
    negatives=st.integers(1, 8),
    hardest=st.sampled_from([0.05, 0.1, 0.5, 1.0]),
    bounded=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_draws_the_wanted_number_from_the_hardest(
    anchors, keys, classes, positives, negatives, hardest, bounded, seed
) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarities = torch.rand(anchors, keys, generator=generator)
    key_labels = torch.randint(0, classes, (keys,), generator=generator)
    is_positive = torch.randint(0, classes, (anchors, 1), generator=generator) == key_labels
    most = int(torch.bincount(key_labels).max()) if bounded else None
    select = SemiHard(
        positives=positives, negatives=negatives, hardest=hardest, generator=generator, most_positives=most
    )
    chosen = mask_of(select(similarities, is_positive, ~is_positive), keys)
    for row in range(anchors):
        for wanted, candidates, descending in (
            (positives, is_positive[row], False),
            (negatives, ~is_positive[row], True),
        ):
            order = similarities[row].argsort(descending=descending)
            order = order[candidates[order]]
            pool = set(order[: math.ceil(hardest * len(order))].tolist())
            drawn = set((chosen[row] & candidates).nonzero().flatten().tolist())
            assert drawn <= pool
            assert len(drawn) == min(wanted, len(pool))


def test_every_key_of_the_pool_is_as_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    select = SemiHard(positives=5, negatives=5, hardest=0.5, generator=generator)
    similarities = torch.arange(40.0).expand(4000, 40)
    is_positive = torch.arange(40).expand(4000, 40) < 20
    counts = mask_of(select(similarities, is_positive, ~is_positive), 40).sum(0)
    assert counts[10:30].eq(0).all()  # the easy half of each
    for part in (counts[:10], counts[30:]):
        assert part.sum() == 20000
        assert ((part - 2000).abs() < 5 * math.sqrt(4000 * 0.25)).all()


@pytest.mark.parametrize("hardest", [0.1, 0.3, 0.7])
def test_the_pool_is_rounded_up_exactly(hardest: float) -> None:
    select = SemiHard(positives=100, negatives=100, hardest=hardest, generator=torch.Generator())
    for count in (1, 7, 10, 30, 90):
        mask = torch.ones(1, count, dtype=torch.bool)
        assert mask_of(select(torch.rand(1, count), mask, ~mask), count).sum() == math.ceil(hardest * count)
