"""Two views of unlabelled images: what they share, what differs, and that a resume sees the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.data.reading.config import AugmentConfig
from pipeline.data.reading.unlabelled import StrongView, UnlabelledBatch, UnlabelledBatches, draw_box
from serving.contract.errors import UserError

CONFIG = AugmentConfig(crop=(48, 64), scale=(0.5, 1.0))
VIEW = StrongView(0.5, 0.5)


@pytest.fixture
def unlabelled(tiny_prepared: Prepared) -> PreparedSplit:
    train = tiny_prepared.split("train")
    return dataclasses.replace(train, entries=tuple(entry.without_label() for entry in train.entries))


def batches(split: PreparedSplit, view: StrongView = VIEW, **settings: Any) -> list[UnlabelledBatch]:
    values: dict[str, Any] = {"batch_size": 3, "iterations": 4, "seed": 1, **settings}
    return list(UnlabelledBatches(split, CONFIG, view, **values))


def test_views_share_the_crop_and_differ_in_colour(unlabelled: PreparedSplit) -> None:
    for batch in batches(unlabelled):
        assert batch.weak.shape == batch.strong.shape == (3, 3, 48, 64)
        assert batch.weak.dtype == batch.strong.dtype == torch.uint8
        assert batch.inside.any() and not batch.inside.all(), "images of half the size leave padding"
        padding = torch.tensor(CONFIG.padding_colour, dtype=torch.uint8)
        assert (batch.weak.permute(0, 2, 3, 1)[~batch.inside] == padding).all()
        assert not torch.equal(batch.weak, batch.strong)
        for weak, strong, inside in zip(batch.weak, batch.strong, batch.inside, strict=True):
            seen = [view.float().mean(0)[inside].numpy() for view in (weak, strong)]
            assert np.corrcoef(*seen)[0, 1] > 0.9, "the same crop"
    same = batches(unlabelled, StrongView(0.0, 0.0))
    assert all(torch.equal(batch.weak, batch.strong) and not batch.boxes.any() for batch in same)


def test_batches_follow_from_seed_and_iteration_alone(unlabelled: PreparedSplit) -> None:
    whole = batches(unlabelled)
    for settings in ({"start_iteration": 2}, {"start_iteration": 2, "workers": 2}):
        for batch, expected in zip(batches(unlabelled, **settings), whole[2:], strict=True):
            for name in ("weak", "strong", "inside", "boxes"):
                assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert not torch.equal(batches(unlabelled, seed=2)[0].weak, whole[0].weak)


def test_parts_of_a_batch_are_those_of_the_whole(unlabelled: PreparedSplit) -> None:
    parts = zip(*(batches(unlabelled, positions=range(i, i + 1)) for i in range(3)), strict=True)
    for whole, part in zip(batches(unlabelled), parts, strict=True):
        for name in ("weak", "strong", "inside", "boxes"):
            assert torch.equal(torch.cat([getattr(each, name) for each in part]), getattr(whole, name))


def test_a_crop_alone_is_not_mixed_with_itself(unlabelled: PreparedSplit) -> None:
    assert not any(batch.boxes.any() for batch in batches(unlabelled, StrongView(0.5, 1.0), batch_size=1))


def test_boxes_lie_inside_and_have_the_size_that_was_drawn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = draw_box((48, 64), 1.0, generator)
        assert 0 <= rows.start < rows.stop <= 48 and 0 <= columns.start < columns.stop <= 64
        share = (rows.stop - rows.start) * (columns.stop - columns.start) / (48 * 64)
        assert 0.005 < share < 0.45
    drawn = [draw_box((48, 64), 0.5, generator)[0].stop > 0 for _ in range(2000)]
    assert 0.45 < np.mean(drawn) < 0.55


def test_no_image_is_refused_and_a_file_that_is_gone_is_named(unlabelled: PreparedSplit, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to train on"):
        batches(dataclasses.replace(unlabelled, entries=()))
    with pytest.raises(UserError, match="cannot be read"):
        batches(dataclasses.replace(unlabelled, root=tmp_path))
