"""The interval of a difference in mIoU: does it agree with a direct computation, and does it hold what it claims?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.evaluation.accuracy import PairedAccuracy, accuracy_section

CLASSES = ("road", "sky", "car")


def confusions(generator, images, accuracy, hardness=None):
    """`[N,3,3]` confusion matrices of 300 pixels per image, `accuracy` of them right; hard images have fewer."""
    hardness = np.zeros(images) if hardness is None else hardness
    result = np.zeros((images, 3, 3), dtype=np.int64)
    for index in range(images):
        right = np.clip(accuracy - hardness[index], 0.05, 0.99)
        for label in range(3):
            others = [(1 - right) / 2] * 3
            others[label] = right
            result[index, label] = generator.multinomial(100, others)
    return result


def paired(baseline, other, *, sequences=None, seeds=None):
    baseline, other = np.asarray(baseline), np.asarray(other)
    boundary = np.ones((*baseline.shape[:2], 3, 2), dtype=np.int64)
    return PairedAccuracy(
        seeds=list(range(len(baseline))) if seeds is None else seeds,
        baseline=baseline,
        other=other,
        class_names=CLASSES,
        sequences=sequences,
        baseline_boundary=boundary,
        other_boundary=boundary * np.array([1, 2]),
    )


def mean_iou(confusion):
    overlap = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - overlap
    return np.nanmean(np.where(union > 0, overlap / np.maximum(union, 1), np.nan))


def test_numbers_are_those_of_the_pooled_confusion_matrix():
    generator = np.random.default_rng(0)
    baseline, other = confusions(generator, 12, 0.7), confusions(generator, 12, 0.8)
    section = accuracy_section(paired([baseline], [other]), resamples=1000, seed=0)
    assert section["miou"] == pytest.approx(mean_iou(other.sum(0)))
    assert section["baseline_miou"] == pytest.approx(mean_iou(baseline.sum(0)))
    assert section["difference"] == pytest.approx(section["miou"] - section["baseline_miou"])
    assert section["ci95"][0] < section["difference"] < section["ci95"][1]
    assert section["rests_on"] == "12 images"
    assert [row["class"] for row in section["per_class"]] == list(CLASSES)
    assert (section["baseline_boundary_iou"], section["boundary_iou"]) == (1.0, 0.5)


def test_pairing_makes_hard_images_harmless():
    generator = np.random.default_rng(3)
    hardness = generator.uniform(0, 0.6, 30)
    baseline = confusions(generator, 30, 0.90, hardness)
    other = confusions(generator, 30, 0.93, hardness)
    together = accuracy_section(paired([baseline], [other]), resamples=1000, seed=0)["ci95"]
    shuffled = accuracy_section(paired([baseline], [other[::-1]]), resamples=1000, seed=0)["ci95"]
    assert together[1] - together[0] < shuffled[1] - shuffled[0]


def test_sequences_are_resampled_whole():
    """Ten copies of one frame tell no more than the frame."""
    generator = np.random.default_rng(4)
    baseline, other = confusions(generator, 6, 0.7), confusions(generator, 6, 0.75)
    copies = [np.repeat(values, 10, axis=0)[None] for values in (baseline, other)]
    names = [f"drive{index}" for index in range(6) for _ in range(10)]
    as_images = accuracy_section(paired(*copies), resamples=2000, seed=0)
    as_sequences = accuracy_section(paired(*copies, sequences=names), resamples=2000, seed=0)
    single = accuracy_section(paired([baseline], [other]), resamples=2000, seed=0)
    assert as_sequences["ci95"] == pytest.approx(single["ci95"])
    assert as_images["ci95"][1] - as_images["ci95"][0] < 0.5 * (single["ci95"][1] - single["ci95"][0])
    assert as_sequences["rests_on"] == "6 sequences"


def test_class_that_occurs_nowhere_does_not_count():
    baseline = np.zeros((1, 3, 3, 3), dtype=np.int64)
    baseline[:, :, 0, 0], baseline[:, :, 1, 1], baseline[:, :, 1, 0] = 50, 40, 10
    section = accuracy_section(paired(baseline, baseline), resamples=1000, seed=0)
    assert section["miou"] == pytest.approx((50 / 60 + 40 / 50) / 2)
    assert section["per_class"][2] == {"class": "car", "iou": None, "baseline_iou": None}


def test_spread_of_seeds_widens_the_interval():
    generator = np.random.default_rng(6)
    baseline = [confusions(generator, 40, 0.8) for _ in range(3)]
    alike = [confusions(generator, 40, 0.82) for _ in range(3)]
    lucky = [confusions(generator, 40, accuracy) for accuracy in (0.75, 0.82, 0.89)]
    narrow = accuracy_section(paired(baseline, alike), resamples=1000, seed=0)
    wide = accuracy_section(paired(baseline, lucky), resamples=1000, seed=0)
    assert wide["ci95"][1] - wide["ci95"][0] > 3 * (narrow["ci95"][1] - narrow["ci95"][0])
    assert [row["seed"] for row in wide["seeds"]] == [0, 1, 2]
    assert wide["rests_on"] == "40 images and 3 seeds"


@pytest.mark.parametrize("seeds", [2, 3])
def test_interval_covers_the_true_difference(seeds):
    """Differences of the same two distributions of networks and images: 0 must be covered in about 95 % of the runs."""
    generator = np.random.default_rng(7)
    hits, trials = 0, 150
    for _ in range(trials):
        hardness = generator.uniform(0, 0.3, 20)
        luck = generator.normal(0, 0.02, (2, seeds))
        baseline, other = ([confusions(generator, 20, 0.85 + value, hardness) for value in row] for row in luck)
        low, high = accuracy_section(paired(baseline, other), resamples=200, seed=0)["ci95"]
        hits += low <= 0 <= high
    assert 0.89 <= hits / trials <= 0.995


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_image_tells_nothing_of_others_however_many_seeds(seeds):
    generator = np.random.default_rng(0)
    baseline, other = ([confusions(generator, 1, right) for _ in range(seeds)] for right in (0.7, 0.8))
    section = accuracy_section(paired(baseline, other), resamples=1000, seed=0)
    assert section["ci95"] == [-1.0, 1.0] and section["difference"] > 0


def test_evaluations_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="expected"):
        paired(np.zeros((1, 4, 3, 3), dtype=np.int64), np.zeros((1, 5, 3, 3), dtype=np.int64))


def test_bounds_are_plain_numbers():
    generator = np.random.default_rng(8)
    section = accuracy_section(
        paired([confusions(generator, 5, 0.7)] * 2, [confusions(generator, 5, 0.7)] * 2), resamples=1000, seed=0
    )
    assert all(isinstance(bound, float) and math.isfinite(bound) for bound in section["ci95"])
