"""The images that checks run on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from export.checks.examination.images import (
    ShapeRange,
    extremes,
    image_batches,
    padded_scenes,
    scene,
    shapes_that_hurt,
)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 1000))
def test_scenes_use_the_whole_range_at_any_size(height, width, seed):
    image = scene(height, width, np.random.default_rng(seed))
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert image.min() == 0 and image.max() == 255


def test_scenes_of_a_batch_differ_and_are_the_same_every_time():
    first = padded_scenes("x", 8, 33, 65, 32, seed=0)
    assert first.images.shape == (8, 64, 96, 3)
    assert len({image.tobytes() for image in first.images}) == 8
    assert np.array_equal(first.images, padded_scenes("x", 8, 33, 65, 32, seed=0).images)
    assert not np.array_equal(first.images, padded_scenes("x", 8, 33, 65, 32, seed=1).images)


def taken(max_side, batch_range=(1, None), size_range=None):
    return ShapeRange.of(SimpleNamespace(batch_range=batch_range, size_range=size_range), 32, max_side)


def test_the_shapes_cover_what_hurts():
    shapes = shapes_that_hurt(32, taken(512))
    assert {batch for batch, _, _ in shapes} == {1, 3, 8}
    sizes = {(height, width) for _, height, width in shapes}
    assert (1, 1) in sizes and any(1 in size and max(size) > 1 for size in sizes)
    assert {(32, 32), (32, 512), (512, 32), (512, 512)} <= sizes, "every corner of the range"
    assert any(height % 2 and width % 2 for height, width in sizes - {(1, 1)})
    assert max(max(sides) for _, *sides in shapes_that_hurt(32, taken(500))) <= 500


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_shapes_stay_within_what_an_engine_takes_and_reach_its_corners(data):
    low, high = ([32 * data.draw(st.integers(1, 6)) for _ in range(2)] for _ in range(2))
    high = [max(pair) for pair in zip(low, high, strict=True)]
    least = data.draw(st.integers(1, 4))
    most = data.draw(st.integers(least, 12))
    shapes = taken(512, (least, most), (tuple(low), tuple(high)))
    found = shapes_that_hurt(32, shapes)
    padded = [(batch, height + -height % 32, width + -width % 32) for batch, height, width in found]
    for batch, height, width in padded:
        assert least <= batch <= most and low[0] <= height <= high[0] and low[1] <= width <= high[1]
    corners = {(height, width) for height in (low[0], high[0]) for width in (low[1], high[1])}
    assert corners <= {shape[1:] for shape in padded}
    assert max(batch for batch, _, _ in found) == min(8, most) or least > 8
    assert any(height % 2 and width % 2 for _, height, width in found)


def test_the_extremes_are_extreme():
    batches = {batch.name: batch.images for batch in extremes(1, 64, 96)}
    assert set(np.unique(batches["all 0"])) == {0} and set(np.unique(batches["all 255"])) == {255}
    assert all(set(np.unique(images)) <= {0, 255} for images in batches.values())
    assert all(images.shape == (1, 64, 96, 3) for images in batches.values())
    assert all(batch.images.shape == (2, 32, 64, 3) for batch in extremes(2, 32, 64))


def test_real_images_are_spread_over_the_split_and_placed_as_serving_places_them(prepared):
    split = prepared.split("train")
    batches = list(image_batches(split, 3, stride=32, resize=None))
    last = len(split) - 1
    assert [batch.name for batch in batches] == [split.name(index) for index in (0, round(last / 2), last)]
    assert all(batch.images.shape == (1, 96, 128, 3) for batch in batches)
    assert np.array_equal(batches[0].images[0, :90, :125], split.read_image(0))
    assert len(list(image_batches(split, 1000, stride=32, resize=None))) == len(split)
    (resized,) = image_batches(split, 1, stride=32, resize=(40, 60))
    assert resized.images.shape == (1, 64, 64, 3)
