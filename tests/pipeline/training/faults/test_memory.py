"""A first step that does not fit into memory, and which batch would."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.config import TrainConfig
from pipeline.training.faults.memory import is_out_of_memory, largest_batch, out_of_memory
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError


def test_what_torch_raises_on_a_real_shortage_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("size mismatch"))


@pytest.mark.parametrize(("room", "fits"), [(8, 8), (5, 4), (1, 1), (0, 0)])
def test_halves_are_tried_until_one_fits(room: int, fits: int) -> None:
    def attempt(size: int) -> None:
        if size > room:
            torch.empty(1 << 60, dtype=torch.uint8)

    assert largest_batch(16, attempt) == fits


def test_the_message_says_batch_crop_and_what_fits(
    run: Callable[..., TrainResult], tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Trainee.forward

    def small(self: Trainee, images: torch.Tensor, **keywords: Any) -> Any:
        if len(images) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)
        return forward(self, images, **keywords)

    monkeypatch.setattr(Trainee, "forward", small)
    config = dataclasses.replace(tiny_config, batch_size=4)
    with pytest.raises(UserError, match=r"batch_size 4 and crops of \[64, 64\]; a batch of 2 fits.*accumulate 2"):
        run("a", MethodConfig("cross_entropy", CrossEntropy.Config()), config)
    assert "not even one image fits" in str(out_of_memory(4, (64, 64), 0, accumulate=1))
    assert "train.accumulate 6 a step" in str(out_of_memory(4, (64, 64), 2, accumulate=3)), "as many images as it was"
