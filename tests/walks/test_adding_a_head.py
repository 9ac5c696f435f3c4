"""The walk that adds a head, done in a copy of the project: it trains, is stripped, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.walks.page import walks
from tests.walks.training import ITERATIONS, train_and_strip


def test_it_is_one_file_and_one_line() -> None:
    walk = walks()["A head"]
    assert len(walk.files) == 1
    assert [text.count("\n") for text in walk.lines.values()] == [1]


@pytest.mark.slow
def test_a_head(tmp_path: Path) -> None:
    results = train_and_strip(tmp_path, "A head", ["cross_entropy", "contextrast"])
    for method, result in results.items():
        model = result["segmentor"]["model"]
        assert (model["head"], model["head_options"]) == ("linear", {"dropout": 0.1})
        assert result["metrics"]["contrast_steps"] == (0 if method == "cross_entropy" else ITERATIONS)
    assert len({result["weights"] for result in results.values()}) == 2
