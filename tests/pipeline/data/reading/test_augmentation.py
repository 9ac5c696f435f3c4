from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.compute.torchvision_shim  # noqa: F401 - before torchvision

# isort: split
from torchvision.transforms.v2 import functional as transforms

from pipeline.data.reading.augmentation import Draw, augment, jitter_colour
from pipeline.data.reading.config import AugmentConfig

STILL = Draw(scale=1.0, top=0.0, left=0.0, flip=False, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0)


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft colours within 60..140, so that a moderate jitter clips nothing."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.uniform(60, 140, (1, 3, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    return fine.permute(1, 2, 0).round().to(torch.uint8).numpy()


def blocks(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 5, (-(-height // 8), -(-width // 8)), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8), np.uint8))[:height, :width]


def test_a_still_draw_cuts_the_window_out_unchanged() -> None:
    image, label = smooth_image(40, 60), blocks(40, 60)
    draw = replace(STILL, top=0.5, left=0.999)
    pixels, ids = augment(image, label, draw, AugmentConfig(crop=(16, 24)))
    assert pixels.dtype == ids.dtype == torch.uint8
    assert np.array_equal(pixels.permute(1, 2, 0), image[12:28, 36:60])
    assert np.array_equal(ids, label[12:28, 36:60])


def test_flip_turns_image_and_label_alike() -> None:
    image, label = smooth_image(16, 24), blocks(16, 24)
    pixels, ids = augment(image, label, replace(STILL, flip=True), AugmentConfig(crop=(16, 24)))
    assert np.array_equal(pixels.permute(1, 2, 0), image[:, ::-1])
    assert np.array_equal(ids, label[:, ::-1])


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_cropping_first_equals_resizing_the_whole_image(scale: float) -> None:
    image, label = smooth_image(64, 96, seed=3), blocks(64, 96, seed=3)
    config = AugmentConfig(crop=(16, 24))
    pixels, ids = augment(image, label, replace(STILL, scale=scale, top=0.0, left=0.0), config)
    whole = transforms.resize(
        torch.from_numpy(image).permute(2, 0, 1), [int(64 * scale), int(96 * scale)], antialias=True
    )
    # Without the outermost pixels: there a resize of the whole sees what lies beyond the crop.
    difference = pixels[:, :-2, :-2].int() - whole[:, :14, :22].int()
    assert difference.abs().max() <= 1
    step = int(1 / scale) if scale < 1 else 1
    expected = label[step // 2 :: step, step // 2 :: step] if scale < 1 else np.kron(label, np.ones((2, 2), np.uint8))
    assert np.array_equal(ids, expected[:16, :24])


@pytest.mark.parametrize("scale", [0.6, 0.77, 1.3, 1.9])
def test_image_and_label_stay_aligned(scale: float) -> None:
    offsets = []
    for shift in range(10):  # a nearest edge is off by up to half a pixel either way; over many edges nothing is left
        label = np.zeros((120, 160), np.uint8)
        label[5 + shift : 25 + shift, 6 + shift : 31 + shift] = 1
        image = np.repeat(label[:, :, None] * 200, 3, axis=2)
        pixels, ids = augment(image, label, replace(STILL, scale=scale), AugmentConfig(crop=(72, 96)))
        # The bilinear edge passes half its height where the label's edge is.
        assert ((pixels[0] >= 100) != (ids == 1)).float().mean() < 0.01
        offsets += [centre(pixels[0].double(), axis) - centre((ids == 1).double(), axis) for axis in (0, 1)]
    assert abs(np.mean(offsets)) < 0.12  # plain "nearest" gives up to 0.5


def centre(weights: torch.Tensor, axis: int) -> float:
    """Centre of mass along `axis`, in pixels."""
    profile = weights.sum(1 - axis)
    return float((profile * torch.arange(len(profile))).sum() / profile.sum())


def test_what_is_smaller_than_the_crop_is_padded_and_ignored() -> None:
    image, label = smooth_image(20, 50), blocks(20, 50)
    config = AugmentConfig(crop=(30, 40), padding_colour=(1, 2, 3))
    pixels, ids = augment(image, label, replace(STILL, scale=0.5, flip=True), config)
    assert pixels.shape == (3, 30, 40)
    assert (ids[10:] == 255).all() and (ids[:, 25:] == 255).all() and (ids[:10, :25] != 255).all()
    assert (pixels[:, 10:] == torch.tensor([1, 2, 3])[:, None, None]).all()
    assert (pixels[:, :, 25:] == torch.tensor([1, 2, 3])[:, None, None]).all()
    assert pixels[:, :10, :25].min() >= 30


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32),
)
def test_every_size_gives_a_crop_of_known_ids(height: int, width: int, crop: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = generator.choice(np.array([3, 7, 255], np.uint8), (height, width))
    config = AugmentConfig(crop=crop, scale=(0.05, 20.0), brightness=1.0, contrast=1.0, saturation=1.0)
    pixels, ids = augment(image, label, Draw.random(config, generator), config)
    assert pixels.shape == (3, *crop) and ids.shape == crop
    assert pixels.dtype == ids.dtype == torch.uint8
    assert set(ids.unique().tolist()) <= {3, 7, 255}


FACTOR = st.floats(0.75, 1.25)


@settings(deadline=None, max_examples=60)
@given(brightness=FACTOR, contrast=FACTOR, saturation=FACTOR, seed=st.integers(0, 99), order=st.integers(0, 5))
def test_colour_is_torchvisions_chain_up_to_its_rounding(
    brightness: float, contrast: float, saturation: float, seed: int, order: int
) -> None:
    image = torch.from_numpy(smooth_image(24, 32, seed)).permute(2, 0, 1)
    names = list(permutations(("brightness", "contrast", "saturation")))[order]
    draw = replace(STILL, brightness=brightness, contrast=contrast, saturation=saturation, order=names)
    adjust = {
        "brightness": transforms.adjust_brightness,
        "contrast": transforms.adjust_contrast,
        "saturation": transforms.adjust_saturation,
    }
    expected = image.float() / 255  # torchvision does not round floats between its steps
    for name in names:
        expected = adjust[name](expected, getattr(draw, name))
    # Half a step by rounding, and a quarter (the contrast's share) of how far the mean of rounded grey values is off.
    assert (jitter_colour(image, draw).float() - expected * 255).abs().max() <= 0.55


def test_colour_saturates_at_both_ends() -> None:
    image = torch.tensor([[[0, 255]], [[0, 255]], [[0, 255]]], dtype=torch.uint8)
    assert jitter_colour(image, replace(STILL, brightness=2.0)).flatten().tolist() == [0, 255] * 3
    assert jitter_colour(image, replace(STILL, contrast=2.0)).flatten().tolist() == [0, 255] * 3


def test_hue_is_torchvisions() -> None:
    image = torch.from_numpy(smooth_image(8, 8)).permute(2, 0, 1).contiguous()
    assert torch.equal(jitter_colour(image, replace(STILL, hue=0.1)), transforms.adjust_hue(image, 0.1))
    assert torch.equal(jitter_colour(image, STILL), image)


def test_the_number_of_threads_changes_no_pixel() -> None:
    config = AugmentConfig(crop=(190, 251), hue=0.1)
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    label = blocks(300, 400)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append([augment(image, label, Draw.random(config, np.random.default_rng(s)), config) for s in range(6)])
    for (image_1, label_1), (image_2, label_2) in zip(*results, strict=True):
        assert torch.equal(image_1, image_2) and torch.equal(label_1, label_2)


def test_draws_fill_their_ranges() -> None:
    config = AugmentConfig(
        scale=(0.5, 2.0), flip_probability=0.25, brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1
    )
    generator = np.random.default_rng(0)
    draws = [Draw.random(config, generator) for _ in range(2000)]
    for name, low, high in (
        ("scale", 0.5, 2.0),
        ("brightness", 0.6, 1.4),
        ("contrast", 0.7, 1.3),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
        ("top", 0.0, 1.0),
        ("left", 0.0, 1.0),
    ):
        values = [getattr(draw, name) for draw in draws]
        margin = 0.02 * (high - low)
        assert low <= min(values) < low + margin and high - margin < max(values) <= high
    assert 0.2 < np.mean([draw.flip for draw in draws]) < 0.3
    assert len({draw.order for draw in draws}) == 6


def test_one_setting_leaves_the_other_draws_alone() -> None:
    one = Draw.random(AugmentConfig(), np.random.default_rng(5))
    other = Draw.random(AugmentConfig(flip_probability=0.0, brightness=0.0), np.random.default_rng(5))
    assert replace(one, flip=False, brightness=1.0) == other


def test_config_lists_every_problem() -> None:
    with pytest.raises(ValueError, match="crop") as caught:
        AugmentConfig(
            crop=(0, 5),
            scale=(2.0, 1.0),
            flip_probability=1.5,
            contrast=-1,
            hue=0.7,
            padding_colour=(0, 0, 256),
            cache_decoded_bytes=-1,
        )
    assert len(str(caught.value).splitlines()) == 7
