"""The margin rule: what two sets of logits explain, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.checks.examination.deviation import measure_deviation, top_margin, unexplained_pixels, worst_error


def some_logits(seed: int, shape: tuple[int, int, int, int] = (2, 4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def masks_of(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(axis=1).astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e-6, 1e-2, 0.3, 3.0, 100.0]), st.integers(2, 7))
def test_masks_of_the_engines_own_logits_are_always_explained(seed, size, classes):
    """Whatever the error: the rule must never blame a mask that follows from its logits."""
    expected = some_logits(seed, (2, classes, 4, 5))
    noise = np.random.default_rng(seed + 1).normal(size=expected.shape) * size
    found = (expected + noise).astype(np.float32)
    deviation = measure_deviation("x", expected, masks_of(found), found, tolerance=1e-4)
    assert deviation.unexplained == 0
    assert deviation.differing == (masks_of(found) != masks_of(expected)).sum()
    error = np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert deviation.error == pytest.approx(error)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_a_mask_from_elsewhere_is_not_explained(seed):
    expected = some_logits(seed)
    found = expected + np.float32(1e-6)
    masks = masks_of(found)
    masks[1, 2, 3] = (masks[1, 2, 3] + 1) % 4
    deviation = measure_deviation("street", expected, masks, found, tolerance=1e-4)
    if top_margin(expected)[1, 2, 3] > 1e-4:
        assert deviation.unexplained == deviation.differing == 1
        assert deviation.first_unexplained.startswith("street, slot 1, pixel (2, 3): class ")


def test_the_error_at_the_pixel_counts_not_the_largest_one():
    expected = np.zeros((1, 2, 1, 2), np.float32)
    expected[0, 0] = 1.0
    found = expected.copy()
    found[0, 0, 0, 0] += 5.0  # far off, but at the other pixel
    masks = np.array([[[0, 1]]], np.uint8)
    assert measure_deviation("x", expected, masks, found, tolerance=1e-4).unexplained == 1


def test_ties_are_explained_either_way():
    expected = np.ones((1, 3, 2, 2), np.float32)
    for value in range(3):
        masks = np.full((1, 2, 2), value, np.uint8)
        deviation = measure_deviation("x", expected, masks, expected, tolerance=0.0)
        assert deviation.unexplained == 0 and deviation.error == 0


def test_without_logits_the_tolerance_explains():
    expected = np.zeros((1, 2, 1, 3), np.float32)
    expected[0, 0] = [[10.0, 1.0, 0.001]]
    masks = np.ones((1, 1, 3), np.uint8)
    deviation = measure_deviation("x", expected, masks, None, tolerance=1e-3)  # margins up to 2 * 1e-3 * 10
    assert deviation.error is None and deviation.error_quantiles is None
    assert (deviation.differing, deviation.unexplained) == (3, 2)


def test_what_is_not_finite_is_an_infinite_error():
    expected = some_logits(0)
    for value in (np.nan, np.inf):
        found = expected.copy()
        found[0, 0, 0, 0] = value
        assert measure_deviation("x", expected, masks_of(expected), found, tolerance=1.0).error == np.inf


def test_logits_of_zero_do_not_divide_by_zero():
    expected = np.zeros((1, 2, 1, 1), np.float32)
    deviation = measure_deviation("x", expected, np.zeros((1, 1, 1), np.uint8), expected, tolerance=1e-4)
    assert deviation.error == 0 and deviation.largest_logit == 0


def test_shapes_that_do_not_fit_are_refused():
    expected = some_logits(0)
    with pytest.raises(ValueError, match="do not fit"):
        measure_deviation("x", expected, masks_of(expected)[:1], expected, tolerance=1e-4)
    with pytest.raises(ValueError, match="do not fit"):
        measure_deviation("x", expected, masks_of(expected), expected[:, :3], tolerance=1e-4)


def test_summaries():
    expected = some_logits(0)
    near = measure_deviation("near", expected, masks_of(expected), expected + np.float32(1e-3), tolerance=1e-4)
    far = measure_deviation("far", expected, masks_of(expected), expected + np.float32(1e-2), tolerance=1e-4)
    blind = measure_deviation("blind", expected, (masks_of(expected) + 1) % 4, None, tolerance=1e-6)
    assert worst_error([near, far, blind])[1] == "far"
    assert worst_error([blind]) == (None, "")
    count, first = unexplained_pixels([near, far, blind])
    assert count == blind.unexplained > 0 and first.startswith("blind")
    assert near.error_quantiles is not None and list(near.error_quantiles) == sorted(near.error_quantiles)
