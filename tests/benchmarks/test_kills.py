"""Real trainings, by the stage and by DVC, killed at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kills import Toy, measure


@pytest.mark.slow
@pytest.mark.parametrize("dvc", [False, True], ids=["stage", "dvc repro"])
def test_a_killed_training_ends_with_the_same_bytes(dvc: bool, tmp_path: Path) -> None:
    result = measure(tmp_path / "project", runs=2, kills=2, dvc=dvc, methods=("pixel_contrast_bank",), seed=1)
    assert result["identical"] == 2, result["different"]
    assert result["kills"] >= 2


@pytest.mark.slow
def test_a_difference_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Toy.results
    calls: list[int] = []

    def altered(self: Toy, method: str) -> dict[str, bytes]:
        calls.append(1)
        found = results(self, method)
        return found if len(calls) == 1 else {**found, "metrics/train/cross_entropy-s0.json": b"{}"}

    monkeypatch.setattr(Toy, "results", altered)
    result = measure(tmp_path / "project", runs=1, kills=1, dvc=False, methods=("cross_entropy",), seed=0)
    assert result["identical"] == 0
    assert result["different"] == {"0: cross_entropy": ["metrics/train/cross_entropy-s0.json"]}
