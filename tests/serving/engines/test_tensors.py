"""Inputs as engines want them, and masks out of whatever they give."""

import dataclasses

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, Manifest, OutputSpec
from serving.engines.tensors import require_shapes, to_confidences, to_input, to_layers, to_masks


def described(output, classes=3):
    names = tuple(f"c{i}" for i in range(classes))
    return Manifest("m", "onnx", "unknown", names, ((0, 0, 0),) * classes, outputs=(output,))


def test_our_own_contract_copies_nothing(photo):
    images = photo(4, 6)[None]
    assert to_input(images, InputSpec()) is images


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_mean_and_std_are_per_rgb_channel_whatever_the_order(photo, dtype, layout, color):
    images = np.stack([photo(4, 6, seed) for seed in range(2)])
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    tensor = to_input(images, InputSpec(dtype=dtype, layout=layout, color=color, mean=mean, std=std))
    expected = (images - np.array(mean)) / np.array(std)
    expected = expected[..., ::-1] if color == "BGR" else expected
    expected = expected.transpose(0, 3, 1, 2) if layout == "NCHW" else expected
    assert tensor.dtype == dtype and tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor, expected, rtol=1e-6 if dtype == "float32" else 1e-3)


def test_logits_of_lower_resolution_are_upsampled_like_interpolate():
    scores = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)

    def sampled(plane, height, width):  # torch's bilinear, align_corners=False, written out
        result = np.empty((height, width))
        for y in range(height):
            for x in range(width):
                v = max((y + 0.5) * plane.shape[0] / height - 0.5, 0)
                u = max((x + 0.5) * plane.shape[1] / width - 0.5, 0)
                y0, x0 = int(v), int(u)
                y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
                a, b = v - y0, u - x0
                above = plane[y0, x0] * (1 - b) + plane[y0, x1] * b
                below = plane[y1, x0] * (1 - b) + plane[y1, x1] * b
                result[y, x] = above * (1 - a) + below * a
        return result

    expected = np.stack([np.stack([sampled(plane, 20, 16) for plane in image]) for image in scores]).argmax(1)
    manifest = described(OutputSpec("o", "logits", "NCHW", "float32"))
    np.testing.assert_array_equal(to_masks({"o": scores}, manifest, (20, 16)), expected)
    manifest = described(OutputSpec("o", "logits", "NHWC", "float32"))
    np.testing.assert_array_equal(to_masks({"o": scores.transpose(0, 2, 3, 1)}, manifest, (20, 16)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int32", "float32"])
@pytest.mark.parametrize("layout", ["NHW", "NCHW", "NHWC"])
def test_masks_of_any_dtype_and_layout(dtype, layout):
    mask = np.array([[[0, 1], [2, 1]]])
    values = {"NHW": mask, "NCHW": mask[:, None], "NHWC": mask[..., None]}[layout].astype(dtype)
    manifest = described(OutputSpec("o", "mask", layout, dtype))
    masks = to_masks({"o": values}, manifest, (2, 2))
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, mask)
    np.testing.assert_array_equal(to_masks({"o": values}, manifest, (4, 4))[0], mask[0].repeat(2, 0).repeat(2, 1))


def test_one_channel_is_cut_where_its_content_says():
    for content, low, expected in (
        ("logits", -1.0, [0, 1, 1]),
        ("probabilities", 0.0, [0, 0, 1]),
        ("sigmoid", 0.0, [0, 0, 1]),
    ):
        values = np.array([[[[low, 0.2, 0.7]]]], np.float32)
        manifest = described(OutputSpec("o", content, "NCHW", "float32"), classes=2)
        assert to_masks({"o": values}, manifest, (1, 3)).tolist() == [[expected]]


@pytest.mark.parametrize(
    ("output", "values", "expected"),
    [
        (OutputSpec("o"), np.full((1, 2, 2), 3), "holds class 3; the manifest names 3 classes"),
        (OutputSpec("o"), np.full((1, 2, 2), -1), "holds class -1"),
        (OutputSpec("o", dtype="float32"), np.full((1, 2, 2), np.nan), "holds class nan"),
        (OutputSpec("o", "mask", "NCHW"), np.zeros((1, 2, 2, 2)), "has 1 channel, got 2"),
        (OutputSpec("o", "logits", "NCHW"), np.zeros((1, 5, 2, 2)), "holds 5 classes per pixel"),
        (OutputSpec("o", "logits", "NCHW"), np.zeros((1, 5, 2, 3)), "is its layout NHWC"),
        (OutputSpec("o", "sigmoid", "NCHW"), np.zeros((1, 3, 2, 2)), "the manifest names 3"),
        (OutputSpec("o", "probabilities", "NCHW"), np.full((1, 3, 2, 2), 4.5), "no probabilities: are they logits"),
        (OutputSpec("o", "sigmoid", "NCHW"), np.full((1, 2, 2, 2), -3), "no probabilities: are they logits"),
        (OutputSpec("o", dtype="float32"), np.full((1, 2, 2), 0.7), "holds fractions, which are no classes"),
        (OutputSpec("o", "logits", "NCHW"), np.full((1, 3, 2, 2), np.nan), "holds NaN"),
        (OutputSpec("o", "logits", "NCHW"), np.full((1, 3, 2, 2), np.inf, np.float16), "holds infinity: the engine ov"),
    ],
)
def test_outputs_that_are_not_what_the_manifest_says_are_refused(output, values, expected):
    with pytest.raises(UserError, match=expected):
        to_masks({"o": values}, described(output), (2, 2))


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (12, 12)])
def test_a_class_may_be_ruled_out_by_minus_infinity(size):
    scores = np.zeros((1, 3, 4, 4), np.float32)
    scores[:, ::2] = -np.inf
    manifest = described(OutputSpec("o", "logits", "NCHW", "float32"))
    assert (to_masks({"o": scores}, manifest, size) == 1).all()


def test_a_single_logit_that_never_leaves_0_to_1_is_taken_for_a_probability_and_refused():
    manifest = described(OutputSpec("o", "logits", "NCHW", "float32"), classes=2)
    with pytest.raises(UserError, match=r"from 0\.1 to 0\.9, all foreground .* are they probabilities"):
        to_masks({"o": np.array([[[[0.1, 0.9]]]], np.float32)}, manifest, (1, 2))


def test_overlapping_foregrounds_are_layers_and_the_background_is_where_none_is():
    values = np.array([[[[0.9, 0.2, 0.6]], [[0.6, 0.4, 0.7]]]], np.float32)  # two foregrounds, three pixels
    manifest = described(OutputSpec("o", "sigmoid", "NCHW", "float32"))
    assert to_masks({"o": values}, manifest, (1, 3)).tolist() == [[[1, 0, 2]]]
    assert to_layers({"o": values}, manifest, (1, 3)).tolist() == [[[[255, 255], [0, 0], [255, 255]]]]
    assert to_layers({"o": values[:, :1]}, described(manifest.mask_output, classes=2), (1, 3)) is None
    assert to_layers({"o": values}, described(OutputSpec("o")), (1, 3)) is None


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("NCHW", (2, 3, 64, 96)),
        ("NCHW", (2, 3, 16, 24)),  # a quarter
        ("NHWC", (2, 8, 12, 3)),
        ("NCHW", (2, 3, 128, 192)),  # twice
        ("NCHW", (2, 3, 2, 3)),
    ],
)
def test_outputs_of_the_size_of_the_images_or_a_whole_part_of_it_are_taken(layout, shape):
    manifest = described(OutputSpec("o", "logits", layout, "float32"))
    require_shapes({"o": np.zeros(shape)}, manifest, 2, (64, 96))


@pytest.mark.parametrize(
    "shape",
    [
        (2, 3, 0, 0),
        (2, 0, 64, 96),
        (1, 3, 64, 96),  # of one image
        (2, 3, 96, 64),  # height and width exchanged
        (2, 3, 44, 76),  # cut out of the middle
        (2, 3, 64),
        (2, 3),
        (2, 3, 1, 1),  # says what is in the image and not where
        (0,),
    ],
)
def test_outputs_that_cannot_be_laid_over_the_images_are_refused(shape):
    manifest = described(OutputSpec("o", "logits", "NCHW", "float32"))
    with pytest.raises(UserError, match=r"output 'o' has shape .* for 2 image\(s\) of 64x96; expected NCHW of 2"):
        require_shapes({"o": np.zeros(shape)}, manifest, 2, (64, 96))


def test_odd_sizes_over_a_stride_are_whole_parts():
    manifest = described(OutputSpec("o", "logits", "NCHW", "float32"))
    for side in (129, 128):  # 513 over 4, rounded up and down
        require_shapes({"o": np.zeros((1, 3, side, side))}, manifest, 1, (513, 513))


CONFIDENCES = (
    np.array([[[0, 128, 255]]], np.uint8),
    np.array([[[0, 128, 255]]], np.int32),
    np.array([[[-0.005, 128 / 255, 1.005]]], np.float16),
)


def test_confidence_is_0_to_255_or_none():
    manifest = described(OutputSpec("o"))
    assert to_confidences({}, manifest, (1, 3)) is None
    for values in CONFIDENCES:
        spec = OutputSpec("c", "confidence", dtype=values.dtype.name)
        both = dataclasses.replace(manifest, outputs=(OutputSpec("o"), spec))
        assert to_confidences({"c": values}, both, (1, 3)).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.0, 128.0, 255.0], np.float32),
        np.array([-0.1, 0.5, 0.9], np.float32),
        np.array([0.5, np.nan, 0.5], np.float16),
        np.array([0, 1, 256], np.int32),
        np.array([-1, 1, 2], np.int64),
    ],
)
def test_what_is_no_confidence_is_refused(values):
    spec = OutputSpec("c", "confidence", dtype=values.dtype.name)
    both = dataclasses.replace(described(OutputSpec("o")), outputs=(OutputSpec("o"), spec))
    with pytest.raises(UserError, match=rf"output 'c' holds {values.dtype} from .*, which are no confidences"):
        to_confidences({"c": values[None, None]}, both, (1, 3))
