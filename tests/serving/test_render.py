"""Colours, overlays and legends."""

import numpy as np
import pytest

from serving.render import color_mask, legend, overlay, undrawn

PALETTE = ((255, 0, 0), (0, 255, 0))


def test_colours_follow_the_palette_and_the_ignore_index_is_black():
    assert color_mask(np.array([[0, 1, 255]], np.uint8), PALETTE).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 0]]]


def test_an_overlay_blends_and_leaves_ignored_pixels_alone(photo):
    image = photo(6, 7)
    mask = np.zeros((6, 7), np.uint8)
    mask[0] = 255
    blended = overlay(image, mask, PALETTE, opacity=0.25)
    np.testing.assert_array_equal(blended[0], image[0])
    np.testing.assert_allclose(blended[1:], 0.75 * image[1:] + 0.25 * np.array(PALETTE[0]), atol=0.51)
    np.testing.assert_array_equal(overlay(image, mask, PALETTE, opacity=0), image)
    np.testing.assert_array_equal(overlay(image, mask * 0 + 1, PALETTE, opacity=1), color_mask(mask * 0 + 1, PALETTE))


def test_an_overlay_of_another_size_or_opacity_is_a_mistake(photo):
    with pytest.raises(ValueError, match="under a mask of"):
        overlay(photo(4, 4), np.zeros((4, 5), np.uint8), PALETTE)
    with pytest.raises(ValueError, match="opacity"):
        overlay(photo(4, 4), np.zeros((4, 4), np.uint8), PALETTE, opacity=1.5)


def test_a_legend_shows_every_colour_and_fits_the_longest_name():
    image = legend(("road", "a very long class name indeed"), PALETTE)
    colors = {tuple(color) for color in image.reshape(-1, 3).tolist()}
    assert {(255, 0, 0), (0, 255, 0)} <= colors
    assert image.shape[1] > legend(("road", "sky"), PALETTE).shape[1]
    assert (image[:, -4:] == 255).all()  # nothing is cut off at the right


def test_names_that_the_font_cannot_draw_stand_by_their_number():
    names = ("road", "\u65e5\u672c", "\u00e9tat (1/2)")
    assert undrawn(names) == [1, 2] and undrawn(("a", "b-c_d", "e f")) == []
    np.testing.assert_array_equal(
        legend(names, (*PALETTE, (0, 0, 9))), legend(("road", "class 1", "class 2"), (*PALETTE, (0, 0, 9)))
    )
