"""The section `model` of params.yaml."""

from __future__ import annotations

import pytest

from pipeline.models.heads import HEADS
from pipeline.models.network import BACKBONES
from pipeline.models.network.config import ModelConfig
from serving.contract.schema import Problems, build


def problems_of(values: object) -> list[str]:
    problems = Problems()
    assert build(ModelConfig, values, "model", problems) is None
    return problems


def test_the_defaults_are_the_light_network_with_imagenet_weights() -> None:
    config = build(ModelConfig, {}, "model", Problems())
    assert config == ModelConfig()
    assert (config.backbone, config.head, config.pretrained) == ("tf_efficientnet_lite0", "light", True)
    assert config.head_config().width == 128


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"backbone": "resnet5"}, "model: backbone: unknown backbone 'resnet5'; did you mean 'resnet50'?"),
        ({"head": "deeplab"}, "model: head: unknown head 'deeplab'; did you mean 'deeplabv3'?"),
        ({"pretrainde": True}, "model.pretrainde: unknown key; did you mean 'pretrained'?"),
        ({"head_options": {"widht": 64}}, "model: head_options.widht: unknown key; did you mean 'width'?"),
        ({"head_options": {"width": "wide"}}, "model: head_options.width: expected a whole number, got str 'wide'"),
        ({"head_options": {"width": 1}}, "model: head_options: width: expected at least 8, got 1"),
        ({"output_stride": 7}, "model: output_stride: tf_efficientnet_lite0 can have 32, 16, 8, got 7"),
        (
            {"backbone": "hrnet_w48", "head": "hrnet", "output_stride": 8},
            "model: output_stride: hrnet_w48 can have 32, got 8",
        ),
        (
            {"backbone": "resnet50", "head": "ocr"},
            "model: head: 'ocr' does not go with the backbone 'resnet50'; "
            "expected hrnet_w18_small_v2, hrnet_w18, hrnet_w48",
        ),
        (
            {"backbone": "resnet50", "head": "deeplabv3", "head_options": {"rates": [0], "dropout": 1.0}},
            "model: head_options: rates: expected at least 2 each, got [0]",
        ),
    ],
)
def test_each_mistake_is_named(values: object, expected: str) -> None:
    assert expected in problems_of(values)


def test_all_mistakes_are_listed_at_once() -> None:
    values = {"backbone": "hrnet", "head": "fcn", "head_options": {"dropout": 2, "x": 1}, "output_stride": 3}
    assert len(problems_of(values)) >= 2
    both = problems_of({"backbone": "resnet50", "head": "deeplabv3", "head_options": {"rates": [0], "dropout": 1.0}})
    assert len(both) == 2


@pytest.mark.parametrize(
    ("backbone", "head", "stride"),
    [
        ("tf_efficientnet_lite0", "light", 32),
        ("tf_efficientnet_lite0", "fcn", 16),
        ("resnet101", "deeplabv3", 8),
        ("hrnet_w48", "ocr", 32),
    ],
)
def test_the_output_stride_follows_the_head(backbone: str, head: str, stride: int) -> None:
    assert ModelConfig(backbone=backbone, head=head).backbone_output_stride() == stride


def test_every_head_option_has_a_default_and_every_head_fits_a_backbone() -> None:
    for head in HEADS:
        fitting = [name for name in BACKBONES if BACKBONES.resolve(name).family in HEADS.resolve(head).families]
        assert fitting
        assert ModelConfig(backbone=fitting[0], head=head).head_config() is not None
