"""IoU per class with intervals: against the metrics themselves, and an interval that knows how much it rests on."""

from __future__ import annotations

import numpy as np
import pytest

from export.report.evidence.classes import class_differences
from pipeline.evaluation.accuracy import PairedAccuracy
from pipeline.evaluation.metrics import boundary_iou, iou_per_class

NAMES = ("road", "sky", "car")


def accuracy(images=30, seeds=1, sequences=None, shift=0):
    generator = np.random.default_rng(0)
    baseline = generator.integers(20, 60, (seeds, images, 3, 3))
    moved = np.eye(3, dtype=np.int64) - np.roll(np.eye(3, dtype=np.int64), 1, axis=1)
    other = baseline + shift * moved  # of every label so many pixels more are right
    union = generator.integers(50, 90, (seeds, images, 3))
    bands = np.stack([generator.integers(1, 50, union.shape), union], axis=-1)
    return PairedAccuracy(tuple(range(seeds)), baseline, other, NAMES, sequences, bands, bands)


def test_values_are_those_of_the_metrics_averaged_over_seeds():
    given = accuracy(seeds=2, shift=7)
    found = class_differences(given, boundary=False, resamples=50)
    assert [each.name for each in found] == list(NAMES)
    assert np.allclose([each.baseline for each in found], iou_per_class(given.baseline.sum(axis=1)).mean(axis=0))
    assert np.allclose([each.method for each in found], iou_per_class(given.other.sum(axis=1)).mean(axis=0))
    bands = class_differences(given, boundary=True, resamples=50)
    expected = boundary_iou(given.baseline_boundary.sum(axis=1), given.baseline.sum(axis=1)).mean(axis=0)
    assert np.allclose([each.baseline for each in bands], expected)


def test_an_interval_holds_the_difference_and_widens_with_fewer_images():
    many = class_differences(accuracy(shift=9), boundary=False)
    few = class_differences(accuracy(images=5, shift=9), boundary=False)
    for each in many:
        assert each.low < each.method - each.baseline < each.high
    assert sum(each.high - each.low for each in few) > sum(each.high - each.low for each in many)


def test_whole_sequences_are_drawn():
    alone = class_differences(accuracy(shift=9, sequences=[str(index) for index in range(30)]), boundary=False)
    assert alone == class_differences(accuracy(shift=9), boundary=False)
    pairs = class_differences(accuracy(shift=9, sequences=[str(index // 10) for index in range(30)]), boundary=False)
    assert [each.method for each in pairs] == [each.method for each in alone]
    assert [each.low for each in pairs] != [each.low for each in alone]


def test_equal_networks_differ_by_nothing():
    for each in class_differences(accuracy(), boundary=False, resamples=50):
        assert each.low == each.high == each.method - each.baseline == 0


def test_one_image_and_a_class_without_truth_have_no_interval():
    assert all(np.isnan(each.low) for each in class_differences(accuracy(images=1), boundary=False))
    given = accuracy(shift=3)
    for side in (given.baseline, given.other):
        side[:, :, 1, :] = 0
    found = class_differences(given, boundary=False, resamples=50)
    assert np.isnan([found[1].baseline, found[1].low]).all() and not np.isnan(found[0].low)


@pytest.mark.parametrize("seed", [0, 1])
def test_equal_seeds_give_equal_intervals(seed):
    given = accuracy(shift=9)
    assert class_differences(given, boundary=False, resamples=50, seed=seed) == class_differences(
        given, boundary=False, resamples=50, seed=seed
    )
