"""Nearest-neighbour resizing of class maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.shared.resolution import NO_CLASS, majority, nearest, predicted_classes


@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5), (1, 1), (17, 29), (16, 24)])
def test_equals_pytorchs_exact_nearest(size: tuple[int, int]) -> None:
    labels = torch.arange(2 * 16 * 24).reshape(2, 16, 24)
    expected = F.interpolate(labels[:, None].double(), size=size, mode="nearest-exact")[:, 0].long()
    assert torch.equal(nearest(labels, size), expected)


def test_takes_the_pixel_at_the_cells_centre() -> None:
    labels = torch.arange(8).expand(1, 8, 8)
    assert nearest(labels, (2, 2))[0, 0].tolist() == [2, 6]


def slow_majority(classes: np.ndarray, size: tuple[int, int], num_classes: int, purity: float) -> np.ndarray:
    """Cell by cell, by definition."""
    images, height, width = classes.shape
    found = np.full((images, *size), NO_CLASS)
    for image, row, column in np.ndindex(found.shape):
        rows = [y for y in range(height) if y * size[0] // height == row]
        columns = [x for x in range(width) if x * size[1] // width == column]
        cell = classes[image][np.ix_(rows, columns)].ravel()
        counts = [int((cell == label).sum()) for label in range(num_classes)]
        best = int(np.argmax(counts))
        if counts[best] and counts[best] / len(cell) >= purity:
            found[image, row, column] = best
    return found


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (1, 1), (3, 5), (16, 24)])
@pytest.mark.parametrize("purity", [0.0, 0.3, 0.5, 1.0])
def test_the_majority_of_a_cell_by_definition(size: tuple[int, int], purity: float) -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(-1, 4, (2, 8, 12), generator=generator).repeat_interleave(2, 1).repeat_interleave(2, 2)
    classes[:, :4, :6] = NO_CLASS  # a cell of nothing
    classes[0, 8:, 12:] = 2  # pure cells
    expected = slow_majority(classes.numpy(), size, 4, purity)
    assert torch.equal(majority(classes, size, num_classes=4, purity=purity), torch.tensor(expected))


def test_of_equal_shares_the_lowest_class_wins_and_unlabelled_pixels_make_a_cell_impure() -> None:
    cell = torch.tensor([[[3, 3, 1, 1]]])
    assert majority(cell, (1, 1), num_classes=4, purity=0.5).item() == 1
    assert majority(cell, (1, 1), num_classes=4, purity=0.51).item() == NO_CLASS
    cell = torch.tensor([[[3, 3, 3, 255]]])
    assert majority(cell, (1, 1), num_classes=4, purity=0.75).item() == 3
    assert majority(cell, (1, 1), num_classes=4, purity=0.8).item() == NO_CLASS


def test_predictions_are_the_largest_logits() -> None:
    logits = torch.randn(2, 5, 6, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    predictions = predicted_classes(logits)
    assert torch.equal(predictions, logits.argmax(1))
    assert not predictions.requires_grad
