"""The network that ships: sizes, normalisation, and weights that follow from the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.compute.random_streams import random_stream, stream_seed
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor, enlarge, upsample
from serving.contract.errors import UserError

SMALL = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False)


@pytest.fixture(scope="module")
def segmentor() -> Segmentor:
    return build_segmentor(SMALL, 5, seed=0).eval()


def states_equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_seed_decides_the_weights_whatever_the_global_generator_holds(segmentor: Segmentor) -> None:
    torch.manual_seed(123)
    assert states_equal(segmentor, build_segmentor(SMALL, 5, seed=0))
    assert not states_equal(segmentor, build_segmentor(SMALL, 5, seed=1))


def test_building_leaves_the_global_generators_as_they_were() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - the global state is what is looked at
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    build_segmentor(SMALL, 5, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_pretrained_and_untrained_networks_of_one_seed_share_the_head() -> None:
    pretrained = build_segmentor(ModelConfig(), 5, seed=0)
    untrained = build_segmentor(ModelConfig(pretrained=False), 5, seed=0)
    assert states_equal(pretrained.backbone, build_segmentor(ModelConfig(), 5, seed=1).backbone)
    assert not states_equal(pretrained.backbone, untrained.backbone)
    assert not states_equal(pretrained.head, build_segmentor(ModelConfig(), 5, seed=1).head)


def test_streams_differ_between_purposes_and_seeds_and_leave_no_trace() -> None:
    seeds = {stream_seed(purpose, seed) for purpose in ("segmentor", "training heads", "data") for seed in range(100)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(KeyError), random_stream("segmentor", 0):
        torch.rand(100)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)


def test_normalisation_is_of_pixel_values(segmentor: Segmentor) -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(3).reshape(2, 3, 1, 1)
    normalised = segmentor.normalise(images)
    assert normalised.dtype == torch.float32
    expected = (images.double() - torch.tensor([123.675, 116.28, 103.53]).double()[:, None, None]) / torch.tensor(
        [58.395, 57.12, 57.375]
    ).double()[:, None, None]
    torch.testing.assert_close(normalised.double(), expected, rtol=1e-6, atol=1e-6)


def test_normalisation_is_not_saved_since_the_configuration_holds_it(segmentor: Segmentor) -> None:
    assert not {"mean", "std"} & segmentor.state_dict().keys()
    assert {name for name, _ in segmentor.named_buffers()} >= {"mean", "std"}


@pytest.mark.parametrize("size", [(31, 32), (32, 33), (0, 32), (16, 16), (360, 480)])
def test_sizes_off_the_stride_are_refused_with_what_to_do(segmentor: Segmentor, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"multiples of 32, got {size[0]}x{size[1]}; pad them first"):
        segmentor(torch.zeros(1, 3, *size))


def test_one_deepest_pixel_trains_with_two_images_and_is_explained_with_one() -> None:
    segmentor = build_segmentor(SMALL, 5, seed=0)
    with pytest.raises(UserError, match=r"one 32x32 image per step.*raise train\.batch_size or the crop"):
        segmentor.train()(torch.randn(1, 3, 32, 32))
    assert segmentor.train()(torch.randn(2, 3, 32, 32)).shape == (2, 5, 8, 8)
    assert segmentor.train()(torch.randn(1, 3, 32, 64)).shape == (1, 5, 8, 16)
    assert segmentor.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 5, 8, 8)


def test_one_class_is_no_segmentation() -> None:
    with pytest.raises(ValueError, match="num_classes: expected at least 2, got 1"):
        Segmentor(SMALL, 1)


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
def test_enlarging_by_a_factor_equals_upsampling_to_the_size(factor: int) -> None:
    features = torch.randn(2, 3, 5, 7)
    assert torch.equal(enlarge(features, factor), upsample(features, (5 * factor, 7 * factor)))


def test_upsampling_aligns_pixel_centres_not_corners() -> None:
    ramp = torch.tensor([0.0, 1.0])[None, None, None]
    assert upsample(ramp, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
