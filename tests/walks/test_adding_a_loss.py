"""The walks that add a loss, in a copy of the project: each is called, changes what is trained, and is stripped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.walks.page import walks
from tests.walks.training import ITERATIONS, train_and_strip


@pytest.mark.parametrize("walk", ["A contrastive loss", "A plain loss term", "A supervised term"])
def test_it_is_one_room_or_file_and_one_line(walk: str) -> None:
    found = walks()[walk]
    assert len({Path(name).parent if "__init__" in str(found.files) else name for name in found.files}) == 1
    assert [text.count("\n") for text in found.lines.values()] == [1]


def test_a_plain_loss_term(tmp_path: Path) -> None:
    results = train_and_strip(tmp_path, "A plain loss term", ["cross_entropy", "confidence_penalty"])
    added = results["confidence_penalty"]
    assert added["metrics"]["contrast_steps"] == ITERATIONS, "it was called in every step"
    assert added["metrics"]["mean_anchors"] is None
    assert "loss_term" in added["curves"]
    assert added["weights"] != results["cross_entropy"]["weights"], "it changed what was trained"


@pytest.mark.slow
def test_a_contrastive_loss(tmp_path: Path) -> None:
    results = train_and_strip(tmp_path, "A contrastive loss", ["cross_entropy", "prototype_contrast"])
    added = results["prototype_contrast"]
    assert added["metrics"]["contrast_steps"] == ITERATIONS  # an eighth of 4 iterations is none
    assert added["metrics"]["mean_anchors"] > 0
    assert "contrast" in added["curves"]
    assert added["weights"] != results["cross_entropy"]["weights"]


@pytest.mark.slow
def test_a_supervised_term(tmp_path: Path) -> None:
    results = train_and_strip(tmp_path, "A supervised term", ["cross_entropy", "tversky"])
    added = results["tversky"]
    assert added["metrics"]["contrast_steps"] == 0, "its loss is the baseline's"
    assert {"cross_entropy", "tversky"} <= added["curves"]
    assert added["weights"] != results["cross_entropy"]["weights"]
