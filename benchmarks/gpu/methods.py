"""Every method trained a little: twice, interrupted and gone on with, and with deterministic algorithms alone.

On the CPU all of them give the same bytes; on CUDA that is the question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.data.reading.config import AugmentConfig
from pipeline.evaluation.config import EvaluateConfig
from pipeline.models.network.config import ModelConfig
from pipeline.params import load_params
from pipeline.training.config import TrainConfig
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from pipeline.training.faults.signals import TrainingStopped
from serving.contract.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOY_METHODS = ("cross_entropy", "pixel_contrast_bank")


@dataclasses.dataclass(frozen=True)
class Trials:
    """Trains branches below a folder.

    Attributes:
        prepared: what is trained on.
        model: the network.
        config: the loop's settings.
        folder: where everything is written.
    """

    prepared: Prepared
    model: ModelConfig
    config: TrainConfig
    folder: Path

    def weights(self, name: str, setup: TrainingSetup, stop_after: int | None = None) -> str:
        """The hash of the last weights of a training in the folder `name`, or an empty text where it was stopped."""
        folder = self.folder / name
        looks = itertools.count(1)
        files = TrainingFiles(folder, folder / "curves", folder / "checkpoints")
        try:
            train_branch(setup, self.prepared, files, stop=lambda: next(looks) == stop_after)
        except TrainingStopped:
            return ""
        return hashlib.sha256((folder / "last.safetensors").read_bytes()).hexdigest()

    def judge(self, name: str, setup: TrainingSetup) -> dict[str, Any]:
        """What one method does."""
        first = self.weights(f"{name}-first", setup)
        found: dict[str, Any] = {"repeats": self.weights(f"{name}-second", setup) == first}
        interrupted = self.weights(f"{name}-resumed", setup, stop_after=self.config.iterations // 2)
        found["resumes"] = interrupted == "" and self.weights(f"{name}-resumed", setup) == first
        strict = dataclasses.replace(setup, train=dataclasses.replace(self.config, deterministic=True))
        try:
            found["repeats_deterministic"] = len({self.weights(f"{name}-{turn}", strict) for turn in ("a", "b")}) == 1
        except UserError as error:
            found["deterministic_raises"] = str(error)
        return found


def _judge(name: str, folder: Path, model: ModelConfig, config: TrainConfig) -> dict[str, Any]:
    trials = Trials(load_prepared(folder / "data", None), model, config, folder)
    method = load_params(ROOT / "params.yaml").methods[name]
    return trials.judge(name, TrainingSetup(name, 0, method, model, config, EvaluateConfig()))


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Train all of them, each in a process of its own: nothing is timed here."""
    side, iterations = (64, 4) if toy else (192, 40)
    methods = load_params(ROOT / "params.yaml").methods
    model = ModelConfig("mobilenetv3_small_100" if toy else "tf_efficientnet_lite0", False)
    config = TrainConfig(
        iterations=iterations,
        batch_size=2 if toy else 8,
        device=device,
        threads=1,
        validate_every=iterations,
        augment=AugmentConfig(crop=(side, side)),
    )
    names = TOY_METHODS if toy else tuple(methods)
    with tempfile.TemporaryDirectory(prefix="contrail-gpu-methods-") as folder:
        options = {"train": 8 if toy else 32, "val": 2, "test": 2, "height": side, "width": side, "seed": 0}
        prepare(PrepareConfig(dataset="streets", options=options), Path(folder) / "data")
        context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
        with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), context) as pool:
            running = {name: pool.submit(_judge, name, Path(folder), model, config) for name in names}
            return {name: _answer(future) for name, future in running.items()}


def _answer(future: Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  one method's failure must not hide what the others say
        return {"failed": f"{type(error).__name__}: {error}"}
