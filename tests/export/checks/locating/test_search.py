"""The search ends at a tensor that diverges although nothing that it is computed from does."""

from __future__ import annotations

import numpy as np
import pytest

from export.checks.locating.matching import TensorPair
from export.checks.locating.measuring import TensorError, relative_error
from export.checks.locating.search import AT_ONCE, first_diverging


def chain(length: int) -> list[TensorPair]:
    return [TensorPair(f"t{i}", f"t{i}", "", (i - 1,) if i else ()) for i in range(length)]


class Measured:
    def __init__(self, wrong):
        self.wrong, self.calls = wrong, []

    def __call__(self, pairs):
        self.calls.append(len(pairs))
        return [TensorError(float(int(pair.expected[1:]) in self.wrong), 0.5) for pair in pairs]


@pytest.mark.parametrize("start", [0, 1, 57, 198, 199])
def test_the_first_of_a_chain_is_found_with_few_measurements_of_few_tensors(start):
    measured = Measured(range(start, 200))
    assert first_diverging(chain(200), 199, measured) == start
    assert max(measured.calls, default=0) <= AT_ONCE
    assert len(measured.calls) <= 8


def test_another_branch_that_is_right_does_not_mislead():
    branches = [TensorPair(f"t{i}", f"t{i}", "", (i - 2,) if i > 1 else ()) for i in range(40)]
    pairs = [*branches, TensorPair("t40", "t40", "", (38, 39))]
    for start in range(39):
        wrong = {*range(start, 40, 2), 40}
        assert first_diverging(pairs, 40, Measured(wrong)) == start


def test_an_error_that_vanishes_and_comes_back_is_followed_to_a_tensor_with_sound_inputs():
    wrong = {10, 11, *range(30, 100)}
    found = first_diverging(chain(100), 99, Measured(wrong))
    assert found in wrong and found - 1 not in wrong


def test_what_is_no_number_or_of_another_size_is_infinitely_wrong():
    right = np.ones((1, 2, 3, 4), np.float32)
    assert relative_error(right, right) == 0
    assert relative_error(right.reshape(1, 2, 12) * np.float32(1.5), right) == 0.5
    assert relative_error(right * np.nan, right) == np.inf
    assert relative_error(right[:, :1], right) == np.inf
    assert TensorError(np.inf, 1e9).diverges and TensorError(np.nan, 1.0).diverges
