from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import pipeline.compute.torchvision_shim  # noqa: F401 - torchmetrics imports torchvision

# isort: split
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from pipeline.evaluation.metrics import (
    boundary_counts,
    boundary_iou,
    boundary_width,
    confusion_matrix,
    iou_per_class,
    mean_iou,
)

VOID = 255


def random_maps(
    height: int, width: int, classes: int, seed: int, *, void: float = 0.1, block: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """A blocky label with void, and a prediction that is wrong in places."""
    generator = np.random.default_rng(seed)
    shape = (-(-height // block), -(-width // block))
    coarse = generator.integers(0, classes, shape, dtype=np.uint8)
    coarse[generator.random(shape) < void] = VOID
    label = np.kron(coarse, np.ones((block, block), np.uint8))[:height, :width]
    prediction = np.roll(label, generator.integers(-2, 3, 2), (0, 1))
    guesses = generator.integers(0, classes, label.shape, dtype=np.uint8)
    wrong = (generator.random(label.shape) < 0.1) | (prediction == VOID)
    return label, np.where(wrong, guesses, prediction)


MAPS = st.builds(
    random_maps,
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    classes=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    void=st.sampled_from([0.0, 0.3, 1.0]),
    block=st.integers(1, 5),
)


def plain_confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), np.int64)
    for true, guess in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != VOID:
            counts[true, guess] += 1
    return counts


@settings(deadline=None, max_examples=60)
@given(maps=MAPS)
def test_confusion_is_the_plain_count(maps: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.array_equal(confusion_matrix(*maps, 5, VOID), plain_confusion(*maps, 5))


@pytest.mark.parametrize("seed", range(5))
def test_confusion_and_iou_agree_with_torchmetrics(seed: int) -> None:
    label, prediction = random_maps(60, 80, 6, seed)
    confusion = confusion_matrix(label, prediction, 6, VOID)
    true, guess = torch.from_numpy(label).long(), torch.from_numpy(prediction).long()
    expected = multiclass_confusion_matrix(guess, true, num_classes=6, ignore_index=VOID)
    assert np.array_equal(confusion, expected.numpy())
    per_class = multiclass_jaccard_index(guess, true, num_classes=6, ignore_index=VOID, average="none")
    np.testing.assert_allclose(iou_per_class(confusion), per_class.numpy(), rtol=1e-6)
    macro = multiclass_jaccard_index(guess, true, num_classes=6, ignore_index=VOID, average="macro")
    assert mean_iou(confusion) == pytest.approx(float(macro), rel=1e-6)


def test_iou_of_a_dataset_comes_from_the_sum_and_agrees_with_the_cityscapes_definition() -> None:
    confusions = np.stack([confusion_matrix(*random_maps(30, 40, 19, seed), 19, VOID) for seed in range(6)])
    total = confusions.sum(axis=0)
    # The benchmark's: TP / (TP + FP + FN), pixels whose label is ignored counting as nothing.
    for index, value in enumerate(iou_per_class(total)):
        tp = int(total[index, index])
        fn = int(total[index].sum()) - tp
        fp = int(total[:, index].sum()) - tp
        assert value == tp / (tp + fp + fn)
    np.testing.assert_array_equal(iou_per_class(confusions)[2], iou_per_class(confusions[2]))


def test_void_counts_for_nothing_whatever_is_predicted_there() -> None:
    label = np.array([[0, VOID], [1, VOID]], np.uint8)
    confusion = confusion_matrix(label, np.array([[0, 200], [1, 0]], np.uint8), 2, VOID)
    assert confusion.tolist() == [[1, 0], [0, 1]]


def test_classes_without_ground_truth_are_nan_and_left_out_of_the_mean() -> None:
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    iou = iou_per_class(confusion)
    assert math.isnan(iou[2])
    assert mean_iou(confusion) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert math.isnan(mean_iou(np.zeros((3, 3), np.int64)))
    # predicted, never true: an error of the class that is true, and no class of its own
    assert mean_iou(np.array([[3, 1], [0, 0]])) == pytest.approx(3 / 4)


@pytest.mark.parametrize("wrong", [1, 40])
def test_a_class_without_ground_truth_moves_the_mean_by_its_pixels_and_no_more(wrong: int) -> None:
    """One pixel predicted as one of three classes that no label shows would take 33 points if it counted as a zero."""
    sound = np.diag([1000, 1000, 0])
    predicted = sound.copy()
    predicted[0, 0], predicted[0, 2] = 1000 - wrong, wrong
    assert mean_iou(sound) - mean_iou(predicted) == pytest.approx(wrong / 2000)


@settings(deadline=None, max_examples=60)
@given(maps=MAPS, seed=st.integers(0, 99))
def test_two_networks_on_one_image_are_averaged_over_the_same_classes(
    maps: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    label, prediction = maps
    other = np.random.default_rng(seed).integers(0, 5, label.shape, dtype=np.uint8)
    height, columns = label.shape
    width = boundary_width(height, columns, 0.02)
    present = [bool((label == index).any()) for index in range(5)]
    for guess in (prediction, other):
        confusion = confusion_matrix(label, guess, 5, VOID)
        assert (~np.isnan(iou_per_class(confusion))).tolist() == present
        boundary = boundary_iou(boundary_counts(label, guess, 5, VOID, width), confusion)
        assert not (np.isnan(iou_per_class(confusion)) & ~np.isnan(boundary)).any()


def test_indices_outside_the_classes_are_refused() -> None:
    label, prediction = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    bad = label.copy()
    bad[0] = (7, 9)
    with pytest.raises(ValueError, match=r"label: expected 0..2 or 255 for void, got \[7, 9\]"):
        confusion_matrix(bad, prediction, 3, VOID)
    with pytest.raises(ValueError, match=r"prediction: expected 0..2, got \[7, 9\]"):
        confusion_matrix(label, bad, 3, VOID)
    with pytest.raises(ValueError, match="one shape"):
        confusion_matrix(label, prediction[:1], 3, VOID)
    with pytest.raises(ValueError, match="uint8"):
        confusion_matrix(label, prediction.astype(np.int64), 3, VOID)


def brute_force_boundary_counts(label: np.ndarray, prediction: np.ndarray, classes: int, width: int) -> np.ndarray:
    """Pixel by pixel, class by class, from the definition."""
    height, length = label.shape
    counts = np.zeros((classes, 2), np.int64)
    for index in range(classes):
        bands = []
        for classmap in (label, prediction):
            mask = (classmap == index) | (label == VOID)
            band = np.zeros(mask.shape, bool)
            for y, x in product(range(height), range(length)):
                if label[y, x] == VOID or not mask[y, x]:
                    continue
                for dy, dx in product(range(-width, width + 1), repeat=2):
                    inside = 0 <= y + dy < height and 0 <= x + dx < length
                    if not inside or not mask[y + dy, x + dx]:
                        band[y, x] = True
            bands.append(band)
        counts[index] = (bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum()
    return counts


@settings(deadline=None, max_examples=40)
@given(maps=MAPS, width=st.integers(1, 4))
def test_boundary_counts_are_the_brute_force(maps: tuple[np.ndarray, np.ndarray], width: int) -> None:
    expected = brute_force_boundary_counts(*maps, 5, width)
    assert np.array_equal(boundary_counts(*maps, 5, VOID, width), expected)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 50), length=st.integers(1, 50), width=st.integers(1, 60), seed=st.integers(0, 999))
def test_boundary_bands_are_those_of_the_published_code(height: int, length: int, width: int, seed: int) -> None:
    """Without void: pad by one zero, erode with a 3x3 square `width` times, subtract, as in the authors' repository."""
    label, prediction = random_maps(height, length, 3, seed, void=0.0, block=7)

    def band(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        return (padded & ~ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=width, border_value=1))[1:-1, 1:-1]

    for index in range(3):
        one, other = band(label == index), band(prediction == index)
        counts = boundary_counts(label, prediction, 3, VOID, width)[index]
        assert counts.tolist() == [(one & other).sum(), (one | other).sum()]


def test_the_edge_of_void_is_no_contour() -> None:
    label = np.zeros((21, 21), np.uint8)
    label[:, 10:] = 1
    thick = label.copy()
    thick[:, 9:11] = VOID  # annotators like to leave the edge itself out
    assert boundary_counts(label, label, 2, VOID, 3)[0].tolist() == [21 * 10 - 15 * 4, 21 * 10 - 15 * 4]
    assert boundary_counts(thick, label, 2, VOID, 3)[0].tolist() == [21 * 9 - 15 * 5, 21 * 9 - 15 * 5]
    hole = np.zeros((21, 21), np.uint8)
    hole[10, 10] = VOID
    assert boundary_counts(hole, np.zeros_like(hole), 1, VOID, 3)[0, 1] == 21 * 21 - 15 * 15


def test_boundary_iou_sees_what_iou_hides() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[20:80, 20:80] = 1
    prediction = np.zeros_like(label)
    prediction[22:78, 22:78] = 1
    width = boundary_width(100, 100, 0.02)
    assert width == 3
    plain = iou_per_class(confusion_matrix(label, prediction, 2, VOID))[1]
    confusion = confusion_matrix(label, prediction, 2, VOID)
    boundary = boundary_iou(boundary_counts(label, prediction, 2, VOID, width), confusion)[1]
    assert plain > 0.85 and boundary < 0.3


def test_boundary_of_classes_without_ground_truth_is_nan() -> None:
    label = np.zeros((5, 5), np.uint8)
    for prediction in (label, np.ones_like(label)):
        confusion = confusion_matrix(label, prediction, 2, VOID)
        values = boundary_iou(boundary_counts(label, prediction, 2, VOID, 1), confusion)
        assert values[0] == (prediction == 0).all() and math.isnan(values[1])


def test_boundary_width_is_a_share_of_the_diagonal_and_at_least_one() -> None:
    assert boundary_width(1024, 2048, 0.02) == 46
    assert boundary_width(4, 4, 0.02) == 1
    with pytest.raises(ValueError, match="width"):
        boundary_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8), 1, VOID, 0)
