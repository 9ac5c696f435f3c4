"""Resize, pad, crop and tiles: every way back gives what went in."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serving.images.geometry import Placement, place, resize_image, resize_nearest, restore, tile, untile

SIDES = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None)
@given(height=SIDES, width=SIDES, stride=st.sampled_from([1, 2, 7, 8, 32]))
def test_padding_repeats_the_edge_up_to_the_next_multiple_and_comes_off_again(height, width, stride):
    image = noise(height, width)
    placed, placement = place(image, stride=stride)
    assert placed.shape[0] % stride == 0 and placed.shape[1] % stride == 0
    assert placed.shape[0] - height < stride and placed.shape[1] - width < stride
    expected = np.pad(image, ((0, placed.shape[0] - height), (0, placed.shape[1] - width), (0, 0)), mode="edge")
    np.testing.assert_array_equal(placed, expected)
    np.testing.assert_array_equal(restore(placed, placement), image)


def test_an_image_that_fits_is_passed_through_uncopied():
    image = noise(64, 96)
    placed, placement = place(image, stride=32)
    assert placed is image
    assert placement == Placement(64, 96, 64, 96, 64, 96)


@settings(deadline=None)
@given(height=SIDES, width=SIDES, resize=st.tuples(SIDES, SIDES))
def test_a_resized_image_gives_a_mask_of_the_size_it_came_in(height, width, resize):
    placed, placement = place(noise(height, width), stride=8, resize=resize)
    assert (placement.resized_height, placement.resized_width) == resize
    assert placed.shape[:2] == (placement.padded_height, placement.padded_width)
    mask = np.arange(placed.shape[0] * placed.shape[1]).reshape(placed.shape[:2])
    restored = restore(mask, placement)
    assert restored.shape == (height, width)
    assert np.isin(restored, mask[: resize[0], : resize[1]]).all()


@settings(deadline=None)
@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES))
def test_nearest_takes_the_pixel_under_the_centre(source, target):
    values = np.arange(source[0] * source[1]).reshape(source)
    resized = resize_nearest(values, *target)
    for y in range(target[0]):
        for x in (0, target[1] // 2, target[1] - 1):
            expected = values[(2 * y + 1) * source[0] // (2 * target[0]), (2 * x + 1) * source[1] // (2 * target[1])]
            assert resized[y, x] == expected


def test_nearest_agrees_with_pillow_away_from_ties():
    mask = np.random.default_rng(0).integers(0, 11, (97, 131), dtype=np.uint8)
    for height, width in ((360, 480), (50, 61), (97, 200)):
        expected = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(resize_nearest(mask, height, width), expected)


def test_resize_image_is_pillow_bilinear():
    image = noise(40, 30)
    expected = np.asarray(Image.fromarray(image).resize((64, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_image(image, 20, 64), expected)
    assert resize_image(image, 40, 30) is image


def test_restore_refuses_a_mask_of_another_size():
    _, placement = place(noise(30, 30), stride=32)
    with pytest.raises(ValueError, match="64x32 for an image that ran at 32x32"):
        restore(np.zeros((64, 32), np.uint8), placement)


@settings(deadline=None, max_examples=200)
@given(height=SIDES, width=SIDES, sides=st.tuples(st.integers(1, 40), st.integers(1, 40)), data=st.data())
def test_tiles_cover_every_pixel_once_and_overlap_enough(height, width, sides, data):
    overlap = data.draw(st.integers(0, min(sides) - 1))
    tiles = tile(height, width, tile_height=sides[0], tile_width=sides[1], overlap=overlap)
    kept = np.zeros((height, width), np.int64)
    for part in tiles:
        assert part.top <= part.keep_top < part.keep_bottom <= part.bottom <= height
        assert part.left <= part.keep_left < part.keep_right <= part.right <= width
        assert part.bottom - part.top == min(sides[0], height)
        assert part.right - part.left == min(sides[1], width)
        kept[part.keep_top : part.keep_bottom, part.keep_left : part.keep_right] += 1
    assert (kept == 1).all()
    columns = sorted({(part.left, part.right) for part in tiles})
    for (_, right), (left, _) in pairwise(columns):
        assert right - left >= overlap
    values = np.arange(height * width).reshape(height, width)
    windows = [values[part.top : part.bottom, part.left : part.right] for part in tiles]
    np.testing.assert_array_equal(untile(windows, tiles), values)


def test_a_label_is_kept_at_least_half_the_overlap_away_from_a_cut():
    for part in tile(100, 300, tile_height=64, tile_width=64, overlap=20):
        assert part.top == 0 or part.keep_top - part.top >= 10
        assert part.right == 300 or part.right - part.keep_right >= 10


@pytest.mark.parametrize("overlap", [-1, 32, 100])
def test_an_overlap_that_leaves_no_step_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap"):
        tile(100, 100, tile_height=64, tile_width=32, overlap=overlap)
