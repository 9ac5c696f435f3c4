"""Anchor sampling: the golden groups, every rule by property, determinism, degenerate maps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.losses.shared.sampling import AnchorSample, sample_anchors

GOLDEN = np.load(Path(__file__).parents[3] / "golden" / "info_nce.npz")


def sample(labels: Tensor, predictions: Tensor, seed: int = 0, **changed: int | None) -> AnchorSample:
    arguments = {"max_samples": 64, "max_views": 10, "ignore_index": 255, **changed}
    return sample_anchors(labels, predictions, **arguments, generator=torch.Generator().manual_seed(seed))


def test_golden_groups() -> None:
    anchors = sample(
        torch.tensor(GOLDEN["sampler/labels"]),
        torch.tensor(GOLDEN["sampler/predictions"]),
        max_samples=int(GOLDEN["sampler/max_samples"]),
        max_views=int(GOLDEN["sampler/max_views"]),
        ignore_index=-1,
    )
    kept = Counter(zip(anchors.image.tolist(), anchors.label.tolist(), anchors.hard.tolist(), strict=True))
    expected = Counter()
    for image, label, _, _, hard, easy in GOLDEN["sampler/groups"].tolist():
        expected[image, label, True] += hard
        expected[image, label, False] += easy
    assert kept == +expected


@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
    classes=st.integers(1, 5),
    wrong=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    max_samples=st.integers(1, 60),
    max_views=st.integers(1, 12),
    min_pixels=st.sampled_from([None, 1, 3, 8, 20]),
    seed=st.integers(0, 2**16),
)
def test_every_rule(shape, classes, wrong, ignored, max_samples, max_views, min_pixels, seed) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape)
    predictions = np.where(rng.random(shape) < wrong, (labels + 1) % (classes + 1), labels)
    labels[rng.random(shape) < ignored] = 255
    limits = {"max_samples": max_samples, "max_views": max_views, "min_pixels": min_pixels}
    anchors = sample(torch.tensor(labels), torch.tensor(predictions), seed, **limits)

    groups = {}
    for image in range(shape[0]):
        for label in range(classes):
            members = labels[image] == label
            if members.sum() >= (max_views + 1 if min_pixels is None else min_pixels):
                hard = int((members & (predictions[image] != label)).sum())
                groups[image, label] = (hard, int(members.sum()) - hard)
    got = Counter(zip(anchors.image.tolist(), anchors.label.tolist(), strict=True))
    if len(groups) > max_samples:
        assert set(got) <= set(groups)
        assert len(got) == max_samples
        assert set(got.values()) == {1}
        views = 1
    else:
        views = min(max_samples // max(1, len(groups)), max_views)
        assert got == {group: min(views, sum(sizes)) for group, sizes in groups.items()}
    assert len(anchors) <= max_samples
    hard_kept = Counter(zip(anchors.image[anchors.hard].tolist(), anchors.label[anchors.hard].tolist(), strict=True))
    for group in got:
        hard, easy = groups[group]
        taken = min(views, hard + easy)
        wanted = taken // 2
        if hard < wanted:
            wanted = hard
        elif easy < taken - wanted:
            wanted = taken - easy
        assert hard_kept[group] == wanted
    pixels = shape[1] * shape[2]
    # entries tell the truth and no pixel is taken twice
    flat_labels, flat_predictions = labels.reshape(-1, pixels), predictions.reshape(-1, pixels)
    places = list(zip(anchors.image.tolist(), anchors.pixel.tolist(), strict=True))
    assert len(set(places)) == len(places)
    for (image, pixel), label, hard in zip(places, anchors.label.tolist(), anchors.hard.tolist(), strict=True):
        assert flat_labels[image, pixel] == label
        assert (flat_predictions[image, pixel] != label) == hard


def test_the_choice_is_uniform_and_follows_the_generator() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.int64)
    predictions = labels.clone()
    predictions[0, :2] = 1  # 12 hard, 24 easy
    chosen = torch.zeros(36)
    generator = torch.Generator().manual_seed(0)
    for _ in range(1500):
        anchors = sample_anchors(labels, predictions, max_samples=6, max_views=6, ignore_index=255, generator=generator)
        chosen[anchors.pixel] += 1
    assert chosen[:12].sum() == chosen[12:].sum() == 4500
    # each hard pixel is taken with probability 1/4, each easy one with 1/8: five deviations
    assert ((chosen[:12] - 375).abs() < 5 * (1500 * 0.25 * 0.75) ** 0.5).all()
    assert ((chosen[12:] - 187.5).abs() < 5 * (1500 * 0.125 * 0.875) ** 0.5).all()
    first, again, other = (sample(labels, predictions, seed).pixel for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    sample(torch.zeros(1, 8, 8, dtype=torch.int64), torch.zeros(1, 8, 8, dtype=torch.int64))
    assert torch.equal(before, torch.get_rng_state())


def test_the_threshold_is_strict() -> None:
    labels = torch.zeros(1, 2, 5, dtype=torch.int64)
    assert len(sample(labels, labels, max_views=10)) == 0
    assert len(sample(labels, labels, max_views=9)) == 9


def test_rare_classes_are_kept_without_taking_anchors_from_others() -> None:
    """What `max_views` alone cannot do: as a threshold it shuts the rare class out, lowered it takes anchors away."""
    labels = torch.zeros(1, 20, 20, dtype=torch.int64)
    labels[0, 0, :5] = 1
    counts = {
        name: torch.bincount(sample(labels, labels, max_samples=1000, **limits).label, minlength=2).tolist()
        for name, limits in {
            "published": {"max_views": 100},
            "lowered": {"max_views": 4},
            "both": {"max_views": 100, "min_pixels": 4},
        }.items()
    }
    assert counts == {"published": [100, 0], "lowered": [4, 4], "both": [100, 5]}


def test_refuses_maps_of_different_shape_and_empty_maxima() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="one shape"):
        sample(labels, labels[:, :2])
    with pytest.raises(ValueError, match="at least 1"):
        sample(labels, labels, max_samples=0)
    with pytest.raises(ValueError, match="min_pixels: expected at least 1, got 0"):
        sample(labels, labels, min_pixels=0)
