"""Boundary-aware negatives: golden masks, scipy's distance transform, every rule by property, degenerate maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from pipeline.losses.contextrast import boundary_aware_negatives
from pipeline.losses.shared import boundary
from pipeline.losses.shared.boundary import squared_distance_within

GOLDEN = np.load(Path(__file__).parents[3] / "golden" / "bane.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files})


def blobs(rng: np.random.Generator, shape: tuple[int, ...], classes: int, cell: int) -> np.ndarray:
    """Blocks of random classes: regions with an inside."""
    coarse = rng.integers(0, classes, (shape[0], shape[1] // cell + 1, shape[2] // cell + 1))
    return coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, : shape[1], : shape[2]]


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    mask = boundary_aware_negatives(
        torch.tensor(GOLDEN[f"{name}/labels"]),
        torch.tensor(GOLDEN[f"{name}/predictions"]),
        fraction=float(GOLDEN[f"{name}/fraction"]),
        ignore_index=255,
    )
    assert mask.dtype == torch.bool
    assert np.array_equal(mask.numpy(), GOLDEN[f"{name}/mask"])


@settings(deadline=None, max_examples=150)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    classes=st.integers(1, 4),
    cell=st.integers(1, 9),
    agreement=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    ignored=st.sampled_from([0.0, 0.1, 1.0]),
    fraction=st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_definition(
    shape, classes, cell, agreement, ignored, fraction, seed, reference_boundary_negatives
) -> None:
    rng = np.random.default_rng(seed)
    labels = blobs(rng, shape, classes, cell)
    predictions = np.where(rng.random(shape) < agreement, labels, blobs(rng, shape, classes + 1, cell))
    labels = np.where(rng.random(shape) < ignored, 255, labels)
    mask = boundary_aware_negatives(
        torch.tensor(labels), torch.tensor(predictions), fraction=fraction, ignore_index=255
    )
    assert np.array_equal(mask.numpy(), reference_boundary_negatives(labels, predictions, fraction, 255))


@pytest.mark.parametrize("size", [(64, 96), (97, 41), (128, 256)])
def test_distances_equal_scipy(size: tuple[int, int], reference_edges) -> None:
    regions = np.stack([np.zeros(size, bool), np.ones(size, bool), np.zeros(size, bool)])
    regions[0, 5:60, 3:40] = True
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    for _ in range(12):
        centre, radius = rng.uniform(0, size, 2), rng.uniform(3, 20)
        regions[2] |= (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    edges = np.stack([reference_edges(region) for region in regions])
    squared = squared_distance_within(torch.tensor(edges)).numpy()
    for image, region in enumerate(regions):
        exact = np.round(distance_transform_edt(~edges[image]) ** 2)
        assert np.array_equal(squared[image][region], exact[region])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 20), (20, 9)])
@pytest.mark.parametrize("chunk_bytes", [1, 3000, 2**24])
def test_both_forms_of_the_envelope_agree(height: int, width: int, chunk_bytes: int) -> None:
    reach = (min(height, width) - 1) // 2
    padded = torch.randint(0, 200, (3, height + 2 * reach, width), generator=torch.Generator().manual_seed(0)).float()
    by_offset = boundary._envelope_by_offset(padded, reach)
    assert by_offset.shape == (3, height, width)
    assert torch.equal(by_offset, boundary._envelope_by_window(padded, reach, chunk_bytes))


def test_a_perfect_prediction_selects_nothing() -> None:
    labels = torch.randint(0, 3, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    assert not boundary_aware_negatives(labels, labels, fraction=0.5, ignore_index=255).any()


def test_ignored_pixels_are_never_selected_and_bound_a_region() -> None:
    labels = torch.zeros(1, 9, 9, dtype=torch.int64)
    labels[0, 4, 4] = 255
    mask = boundary_aware_negatives(labels, torch.ones_like(labels), fraction=0.5, ignore_index=255)
    assert not mask[0, 4, 4]
    assert mask[0, 3, 4] or mask[0, 4, 3]  # their neighbour is outside the region: they are its edge


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.int64), 1.5, "in \\[0,1\\], got 1.5"),
        (torch.zeros(4, 4, dtype=torch.int64), 0.5, "one shape"),
        (torch.zeros(1, 4, 5, dtype=torch.int64), 0.5, "one shape"),
    ],
)
def test_bad_input_is_refused(labels: torch.Tensor, fraction: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        boundary_aware_negatives(labels, torch.zeros(1, 4, 4, dtype=torch.int64), fraction=fraction, ignore_index=255)
