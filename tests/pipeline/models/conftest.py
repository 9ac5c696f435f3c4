"""Every network that the registries can build, each marked by what testing it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

import pipeline.compute.torchvision_shim  # noqa: F401 - tests import timm
from pipeline.models.heads import HEADS
from pipeline.models.network import BACKBONES
from pipeline.models.network.config import ModelConfig

# Built, run and differentiated within a second or two on one core; every other network is slow to test.
QUICK_BACKBONES = {"tf_efficientnet_lite0", "mobilenetv3_small_100", "hrnet_w18_small_v2", "pvt_v2_b0"}


def networks() -> Iterator[tuple[str, str]]:
    """Backbones and heads that go together."""
    for backbone in BACKBONES:
        for head in HEADS:
            if BACKBONES.resolve(backbone).family in HEADS.resolve(head).families:
                yield backbone, head


def configuration(backbone: str, head: str) -> ModelConfig:
    """An untrained network without dropout, so that training mode is deterministic."""
    config = ModelConfig(backbone=backbone, head=head, pretrained=False)
    has_dropout = any(field.name == "dropout" for field in dataclasses.fields(config.head_config()))
    return dataclasses.replace(config, head_options={"dropout": 0.0} if has_dropout else {})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise over the registries whatever asks for `network`."""
    if "network" in metafunc.fixturenames:
        parameters = [
            pytest.param(pair, id="-".join(pair), marks=[] if pair[0] in QUICK_BACKBONES else pytest.mark.slow)
            for pair in networks()
        ]
        metafunc.parametrize("network", parameters, indirect=True, scope="module")


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest) -> ModelConfig:
    """One network of the registries."""
    return configuration(*request.param)
