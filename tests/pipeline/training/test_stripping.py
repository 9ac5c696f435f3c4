"""What a training of each kind leaves is stripped bit for bit, and is the plain network by names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.losses.supervised import SUPERVISED
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import strip
from pipeline.training.checkpoints import load_trainee
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig, build_methods
from serving.contract.schema import Problems

CONTRAST = {"loss": "pixel_contrast", "max_views": 5, "embedding_dim": 16, "warmup_fraction": 0.0}
HELP: dict[str, dict[str, object]] = {
    **{term: {"supervised": [{"term": term}]} for term in SUPERVISED},
    "ohem_cross_entropy_alone": {
        "supervised": [{"term": "cross_entropy", "weight": 0.0}, {"term": "ohem_cross_entropy"}]
    },
    "ema": {"averaging": {"kind": "ema", "decay": 0.9, "batch_norm_batches": 2}},
    "tail": {"averaging": {"kind": "tail", "tail": 0.5, "batch_norm_batches": 2}},
}


def method_of(values: dict[str, object]) -> MethodConfig:
    problems = Problems()
    methods = build_methods({"method": values}, None, problems)
    assert not problems, list(problems)
    return methods["method"]


CASES: dict[str, dict[str, object]] = {
    name: {"loss": "cross_entropy", **settings} for name, settings in HELP.items()
} | {
    f"{name} with contrast": {**CONTRAST, **HELP[name]} for name in ("ema", "tail", "dice", "ohem_cross_entropy_alone")
}


@pytest.mark.parametrize("case", CASES)
def test_every_help_leaves_the_same_network_bit_identical(
    case: str, run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    run("helped", method_of(CASES[case]))
    trained, _ = load_trainee(tmp_path / "helped", "last")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    stripped = strip(trained, images)
    assert torch.equal(stripped(images), trained.eval()(images, embed=True).logits.main)
    plain = build_segmentor(trained.segmentor.config, trained.segmentor.num_classes, seed=0)
    there = {name: (tensor.shape, tensor.dtype) for name, tensor in stripped.state_dict().items()}
    assert there == {name: (tensor.shape, tensor.dtype) for name, tensor in plain.state_dict().items()}
