from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.evaluation.metrics import mean_iou
from pipeline.evaluation.paired import paired_bootstrap, t_interval


def noisy_confusions(images: int, accuracy: float, generator: np.random.Generator, classes: int = 4) -> np.ndarray:
    result = np.empty((images, classes, classes), np.int64)
    for image in range(images):
        right = np.clip(generator.normal(accuracy, 0.05), 0.05, 0.95)
        chances = np.full((classes, classes), (1 - right) / (classes - 1))
        np.fill_diagonal(chances, right)
        result[image] = [generator.multinomial(1000, row) for row in chances]
    return result


def test_bootstrap_is_the_plain_resampling() -> None:
    generator = np.random.default_rng(0)
    a, b = noisy_confusions(12, 0.8, generator), noisy_confusions(12, 0.75, generator)
    interval = paired_bootstrap(a, b, resamples=4000, seed=1, confidence=0.6)
    assert interval.difference == pytest.approx(mean_iou(a.sum(0)) - mean_iou(b.sum(0)))
    plain = []
    for _ in range(4000):
        drawn = generator.integers(0, 12, 12)
        plain.append(mean_iou(a[drawn].sum(0)) - mean_iou(b[drawn].sum(0)))
    tail = stats.norm.cdf(math.sqrt(12 / 11) * stats.t.ppf(0.2, 11))
    low, high = np.quantile(plain, [tail, 1 - tail])
    assert (interval.low, interval.high) == (pytest.approx(low, abs=0.002), pytest.approx(high, abs=0.002))
    assert (interval.units, interval.unit) == (12, "image")
    assert paired_bootstrap(a, b, resamples=300, seed=1) == paired_bootstrap(a, b, resamples=300, seed=1)
    assert paired_bootstrap(a, b, resamples=300, seed=1) != paired_bootstrap(a, b, resamples=300, seed=2)


def test_bootstrap_pairs_the_images() -> None:
    """Images that are hard for both say nothing about the difference."""
    generator = np.random.default_rng(0)
    a = noisy_confusions(30, 0.7, generator)
    hard = np.stack([np.roll(matrix, image % 2, axis=1) for image, matrix in enumerate(a)])
    shift = paired_bootstrap(hard, hard)
    assert (shift.difference, shift.low, shift.high) == (0, 0, 0)


def test_bootstrap_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    truth = 0.0
    covered = 0
    for trial in range(120):
        a, b = noisy_confusions(8, 0.7, generator), noisy_confusions(8, 0.7, generator)
        interval = paired_bootstrap(a, b, resamples=400, seed=trial)
        covered += interval.low <= truth <= interval.high
    assert 106 <= covered <= 120  # 95 % of 120 is 114, standard deviation 2.4


def test_whole_groups_are_resampled() -> None:
    generator = np.random.default_rng(0)
    scenes_a, scenes_b = noisy_confusions(6, 0.8, generator), noisy_confusions(6, 0.75, generator)
    a, b = np.repeat(scenes_a, 10, axis=0), np.repeat(scenes_b, 10, axis=0)  # ten equal frames of each scene
    groups = [f"scene {index // 10}" for index in range(60)]
    by_image = paired_bootstrap(a, b)
    by_group = paired_bootstrap(a, b, groups=groups)
    of_scenes = paired_bootstrap(scenes_a, scenes_b)
    assert (by_group.units, by_group.unit) == (6, "group")
    assert (by_group.low, by_group.high) == (pytest.approx(of_scenes.low), pytest.approx(of_scenes.high))
    assert by_image.high - by_image.low < 0.5 * (by_group.high - by_group.low)


def test_one_group_falls_back_to_its_images_and_one_image_to_no_knowledge() -> None:
    generator = np.random.default_rng(0)
    a, b = noisy_confusions(5, 0.8, generator), noisy_confusions(5, 0.7, generator)
    single = paired_bootstrap(a, b, groups=["one"] * 5)
    assert (single.units, single.unit) == (5, "image")
    assert single == paired_bootstrap(a, b)
    lonely = paired_bootstrap(a[:1], b[:1])
    assert (lonely.low, lonely.high, lonely.units) == (-1, 1, 1)
    assert lonely.difference == pytest.approx(mean_iou(a[0]) - mean_iou(b[0]))


def test_bootstrap_with_classes_that_come_and_go() -> None:
    a = np.zeros((3, 2, 2), np.int64)
    a[:2, 0, 0] = 5
    a[2, 1, 1] = 5  # class 1 in one image only: in many resamples it is absent
    interval = paired_bootstrap(a, a)
    assert (interval.low, interval.high) == (0, 0)
    nothing = paired_bootstrap(np.zeros_like(a), np.zeros_like(a))
    assert math.isnan(nothing.difference) and (nothing.low, nothing.high) == (-1, 1)


def test_bootstrap_refuses_what_is_not_paired() -> None:
    matrices = np.ones((4, 2, 2), np.int64)
    for other in (matrices[:3], np.ones((4, 3, 3), np.int64)):
        with pytest.raises(ValueError, match="one shape"):
            paired_bootstrap(matrices, other)
    with pytest.raises(ValueError, match="N >= 1"):
        paired_bootstrap(matrices[:0], matrices[:0])
    with pytest.raises(ValueError, match="groups"):
        paired_bootstrap(matrices, matrices, groups=["a"])


def test_t_interval_is_scipys() -> None:
    values = [0.01, 0.013, 0.004, 0.02]
    interval = t_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (interval.difference, interval.units, interval.unit) == (pytest.approx(np.mean(values)), 4, "seed")
    with pytest.raises(ValueError, match="at least two seeds"):
        t_interval([0.1])
