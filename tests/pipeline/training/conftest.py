"""A whole branch trained on the tiny dataset, within a second or two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.config import AugmentConfig
from pipeline.evaluation.config import EvaluateConfig
from pipeline.models.network.config import ModelConfig
from pipeline.training.config import TrainConfig
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig

MODEL = ModelConfig(pretrained=False)
CONFIG = TrainConfig(
    iterations=4,
    batch_size=2,
    threads=1,
    device="cpu",
    precision="fp32",
    validate_every=2,
    augment=AugmentConfig(crop=(64, 64)),
)


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    return CONFIG


@pytest.fixture
def run(tiny_prepared: Prepared, tmp_path: Path) -> Callable[..., TrainResult]:
    """Trains a method into the folder of a name below the test's own."""

    def train(
        name: str,
        method: MethodConfig,
        config: TrainConfig = CONFIG,
        *,
        model: ModelConfig = MODEL,
        prepared: Prepared = tiny_prepared,
        fresh: bool = False,
        **options: Any,
    ) -> TrainResult:
        folder = tmp_path / name
        setup = TrainingSetup("method", 0, method, model, config, EvaluateConfig())
        files = TrainingFiles(folder, folder / "curves", folder / "checkpoints")
        return train_branch(setup, prepared, files, fresh=fresh, **options)

    return train
