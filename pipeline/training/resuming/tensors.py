"""A training's state as tensors and plain values, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.network.weights import load_weights
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.resuming.store import Checkpoint
from pipeline.training.state import RunningMeans, TrainingProgress, TrainingState


def state_tensors(
    trainee: Trainee, term: nn.Module, state: TrainingState, best: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Everything that an exact resume needs, flattened to tensors, so that reading it back can run no code.

    Args:
        trainee: weights and buffers.
        term: its buffers, such as a memory bank.
        state: optimiser, average and running means.
        best: the best weights so far; empty before the first validation.
    """
    tensors = {f"trainee.{name}": value for name, value in trainee.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"term.{name}": value for name, value in term.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {
            f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in values.items() if value is not None
        }
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.state_dict().items()}
    return tensors | {f"means.{name}": value for name, value in state.means.sums.items()}


def state_values(state: TrainingState) -> dict[str, Any]:
    """The rest of the state, as JSON holds it."""
    return {"progress": dataclasses.asdict(state.progress), "counts": state.means.counts}


def restore(checkpoint: Checkpoint, path: Path, *, trainee: Trainee, term: nn.Module, state: TrainingState) -> None:
    """Put what `state_tensors` and `state_values` gave into the given objects.

    Raises:
        UserError: it does not fit them; `path` is named.
    """
    tensors = checkpoint.tensors
    load_weights(trainee, dict(under("trainee.", tensors)), path)
    load_weights(term, dict(under("term.", tensors)), path)
    if state.average is not None:
        load_weights(state.average, dict(under("average.", tensors)), path)
    _restore_optimizer(state.optimizer, dict(under("optimizer.", tensors)))
    state.progress = TrainingProgress(**checkpoint.state["progress"])
    device = next(trainee.parameters()).device
    counts = checkpoint.state["counts"]
    state.means = RunningMeans({name: tensors[f"means.{name}"].to(device) for name in counts}, dict(counts))


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    values: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:  # in the parameter's memory format, else every later step takes longer
            value = torch.empty_like(parameter, dtype=value.dtype, device="cpu").copy_(value)
        values.setdefault(int(index), {})[key] = value.detach()
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors whose names begin with `prefix`, without it."""
    return ((name.removeprefix(prefix), value) for name, value in tensors.items() if name.startswith(prefix))
