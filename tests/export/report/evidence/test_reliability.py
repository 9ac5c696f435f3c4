"""Confidence against what is right."""

from __future__ import annotations

import numpy as np
import pytest

from export.report.evidence.reliability import reliability


def test_an_engine_that_is_as_sure_as_it_is_right_has_no_error():
    label, mask = np.zeros((1, 100), np.uint8), np.zeros((1, 100), np.uint8)
    mask[0, :20] = 1
    found = reliability([(label, mask, np.full((1, 100), 204, np.uint8))], 255)
    assert found.counts.tolist() == [0] * 8 + [100, 0]
    assert found.accuracy[8] == 0.8 and found.expected_error == pytest.approx(0)


def test_one_that_is_surer_than_right_has_it_and_void_counts_for_nothing():
    label, mask = np.zeros((1, 100), np.uint8), np.ones((1, 100), np.uint8)
    label[0, :50] = 255
    found = reliability([(label, mask, np.full((1, 100), 255, np.uint8))], 255)
    assert found.counts.sum() == 50 and found.expected_error == pytest.approx(1)
    assert np.isnan(reliability([], 255).expected_error)
