"""The registry of losses and what all contrastive settings share."""

from __future__ import annotations

import dataclasses

import pytest

from pipeline.losses import LOSSES
from pipeline.losses.shared.term import ContrastConfig, LossTerm, TermConfig
from pipeline.models.network.head import Taps
from serving.contract.schema import Problems, build


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_keeps_the_interface(name: str) -> None:
    loss = LOSSES.resolve(name)
    assert issubclass(loss, LossTerm)
    assert isinstance(loss.taps, Taps)
    assert dataclasses.is_dataclass(loss.Config)
    assert loss.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    problems = Problems()
    config = build(loss.Config, {}, f"methods.{name}", problems)  # every setting has a default
    assert not problems
    term = loss(config, num_classes=3, ignore_index=255, training_images=4)
    assert not list(term.parameters())  # what learns is a training head
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
        ({"end_fraction": 0}, r"end_fraction: expected in \(0, 1\], got 0"),
        ({"embedding_dim": 0}, "embedding_dim: expected at least 1"),
        ({"embedding_dim": 0, "weight": 0}, "weight: expected above 0, got 0\nembedding_dim: expected at least 1"),
    ],
)
def test_shared_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ContrastConfig(**settings)


def test_a_term_is_active_between_its_warmup_and_its_end() -> None:
    assert ContrastConfig().active(800) == range(100, 800)
    assert TermConfig().active(5) == range(5)
    assert TermConfig(warmup_fraction=0.25, end_fraction=0.5).active(8) == range(2, 4)
    assert not TermConfig(warmup_fraction=0.6, end_fraction=0.5).active(8)
