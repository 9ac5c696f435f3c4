"""A working directory in which experiments of seconds run: tiny streets, tiny networks, the real code."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import run

PARAMS = """
prepare: {dataset: streets, options: {train: 6, val: 2, test: 4, height: 64, width: 96, seed: 0}}
model: {pretrained: false}
train:
  {iterations: 4, batch_size: 2, device: cpu, precision: fp32, validate_every: 2, augment: {crop: [64, 96]}}
methods: {cross_entropy: {loss: cross_entropy}}
branches: {cross_entropy-s0: {method: cross_entropy, loss: cross_entropy, seed: 0}}
artifacts: {onnx_fp32: {kind: onnx_fp32}}
targets: {ort_fp32: {artifact: onnx_fp32}}
"""
TINY = """
experiment: E0
hypothesis: The contrast changes something. It would count if the interval lay above 0.
params: {prepare: {options: {train: 6, val: 2, test: 4, height: 64, width: 96, seed: 0, train_images: 4}}}
arms:
  cross_entropy: {method: {loss: cross_entropy}}
  contrast: {method: {loss: pixel_contrast, max_views: 2, embedding_dim: 8}, params: {train: {batch_size: 3}}}
comparisons:
  - {name: test mIoU, outcome: miou, method: contrast, baseline: cross_entropy, primary: true, above: 0}
  - {name: training, outcome: training_cross_entropy, method: contrast, baseline: cross_entropy}
pairs: {planned: 2}
judged: {split: test, every: 2, first: 1}
"""


def write_place(folder: Path) -> None:
    """The working directory, with the experiment `tiny`."""
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "recipes").mkdir()
    (folder / "studies").mkdir()
    (folder / "studies" / "tiny.yaml").write_text(TINY)
    (folder / "studies" / "overlay.yaml").write_text("train: {iterations: 9}\n")


def call_main(*arguments: str) -> None:
    """The command with arguments, in the working directory of the moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", *arguments])
        assert run.main() == 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the experiment `tiny`, of which nothing has run."""
    write_place(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def one_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which one pair of `tiny` has run. Not to be changed: see `place_of_one_pair`."""
    folder = tmp_path_factory.mktemp("one_pair")
    write_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call_main("tiny", "--pairs", "1")
    return folder


@pytest.fixture
def place_of_one_pair(one_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `one_pair` to change."""
    shutil.copytree(one_pair, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command with arguments; gives what it prints."""

    def call(*arguments: str) -> str:
        capsys.readouterr()
        call_main(*arguments)
        return capsys.readouterr().out

    return call
