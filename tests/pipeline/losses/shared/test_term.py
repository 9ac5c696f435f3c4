"""The registry of losses and what all contrastive settings share."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.losses import LOSSES
from pipeline.losses.shared.term import ContrastConfig, MethodLoss
from pipeline.models.network.head import Taps
from serving.contract.schema import Problems, build


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_keeps_the_interface(name: str) -> None:
    loss = LOSSES.resolve(name)
    assert issubclass(loss, MethodLoss)
    assert isinstance(loss.taps, Taps)
    assert dataclasses.is_dataclass(loss.Config)
    assert loss.Config.__dataclass_params__.frozen
    problems = Problems()
    config = build(loss.Config, {}, f"methods.{name}", problems)  # every setting has a default
    assert not problems
    method = loss(config, num_classes=3, ignore_index=255, training_images=4)
    assert not list(method.parameters())  # what learns is a training head
    assert isinstance(config, ContrastConfig) == (loss.taps is not Taps.NONE)


def test_settings_from_yaml_are_checked_all_at_once() -> None:
    problems = Problems()
    config = build(
        LOSSES.resolve("pixel_contrast").Config, {"temprature": 1, "memory": "pixels"}, "methods.m", problems
    )
    assert config is None
    assert problems == [
        "methods.m.temprature: unknown key; did you mean 'temperature'?",
        "methods.m.memory: expected one of none, region, pixel, both, got str 'pixels'",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 0}, "weight: expected above 0, got 0"),
        ({"warmup_fraction": 1}, "warmup_fraction: expected in"),
        ({"embedding_dim": 0}, "embedding_dim: expected at least 1"),
    ],
)
def test_shared_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastConfig(**settings)
