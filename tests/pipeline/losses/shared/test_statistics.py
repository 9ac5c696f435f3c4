"""Alignment, uniformity and the share of classes with anchors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.shared.statistics import MAX_ROWS, alignment_and_uniformity, class_share


def test_by_definition() -> None:
    rows = F.normalize(torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(12) % 4
    labels[5] = -1
    distances = {
        (i, j): float((rows[i] - rows[j]).square().sum())
        for i in range(12)
        for j in range(12)
        if i != j and labels[i] >= 0 and labels[j] >= 0
    }
    same = [distance for (i, j), distance in distances.items() if labels[i] == labels[j]]
    result = alignment_and_uniformity(rows.requires_grad_(), labels)
    assert result["alignment"].item() == pytest.approx(sum(same) / len(same), rel=1e-5)
    potential = sum(math.exp(-2 * distance) for distance in distances.values()) / len(distances)
    assert result["uniformity"].item() == pytest.approx(math.log(potential), rel=1e-4)
    assert not any(value.requires_grad for value in result.values())


def test_collapse_shows() -> None:
    result = alignment_and_uniformity(F.normalize(torch.ones(8, 3), dim=1), torch.arange(8) % 2)
    assert result["alignment"].item() == pytest.approx(0, abs=1e-6)
    assert result["uniformity"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("labels", [[], [3], [0, 1], [-1, -1, -1]])
def test_nothing_to_compare(labels: list[int]) -> None:
    rows = F.normalize(torch.randn(len(labels), 3), dim=1)
    result = alignment_and_uniformity(rows, torch.tensor(labels, dtype=torch.int64))
    assert result["alignment"].item() == 0
    assert result["uniformity"].isfinite()


def test_many_rows_are_thinned_evenly() -> None:
    rows = F.normalize(torch.randn(10 * MAX_ROWS, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(len(rows)) % 10  # the step of 10 sees one class only
    thinned = alignment_and_uniformity(rows, labels)
    expected = alignment_and_uniformity(rows[::10], labels[::10])
    assert thinned == expected


def test_class_share() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 255, -1]])
    assert class_share(torch.tensor([0, 0, 2]), labels, num_classes=4).item() == pytest.approx(2 / 3)
    assert class_share(torch.tensor([], dtype=torch.int64), labels, num_classes=4).item() == 0
    assert class_share(torch.tensor([], dtype=torch.int64), labels.fill_(255), num_classes=4).item() == 0
