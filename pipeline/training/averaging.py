"""Weight averaging: what ships is an average of the weights on the way, with batch statistics of its own.

An exponential moving average (with a decay that rises at first, as in TensorFlow's `ExponentialMovingAverage`), or the
plain mean over the last share of the iterations: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", UAI 2018, arXiv 1803.05407, whose section 3.2 recomputes the statistics of batch normalisation for the
averaged weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.models.training_heads.trainee import Trainee
from serving.contract.schema import Require


@dataclass(frozen=True)
class AveragingConfig:
    """Which average of the weights ships instead of the last ones.

    Attributes:
        kind: `ema`, an exponential moving average over all iterations; `tail`, the mean over the last ones.
        decay: of the moving average per iteration; it starts lower, at (1 + n) / (10 + n) after n iterations.
        tail: share of the iterations, the last ones, that the mean is taken over.
        batch_norm_batches: training batches on which the statistics of batch normalisation are computed anew for the
            averaged weights, before every validation.
    """

    kind: Literal["ema", "tail"] = "ema"
    decay: float = 0.999
    tail: float = 0.25
    batch_norm_batches: int = 16

    def __post_init__(self) -> None:
        require = Require()
        require(0 <= self.decay < 1, f"decay: expected in [0, 1), got {self.decay}")
        require(0 < self.tail <= 1, f"tail: expected in (0, 1], got {self.tail}")
        require(self.batch_norm_batches >= 1, f"batch_norm_batches: expected at least 1, got {self.batch_norm_batches}")
        require.done()


class WeightAverage:
    """The running average of a segmentor's weights. Training heads do not ship and are not averaged.

    Args:
        config: which average.
        trainee: on its device, as it is before the first iteration.
        iterations: length of the training.
    """

    def __init__(self, config: AveragingConfig, trainee: Trainee, iterations: int) -> None:
        self.config = config
        self._first = 1 if config.kind == "ema" else iterations - max(1, round(config.tail * iterations)) + 1
        self._count = 0
        # Holds the average in its segmentor, and at a validation the training heads of that moment.
        self._averaged = copy.deepcopy(trainee)
        self._averaged.requires_grad_(False)

    @property
    def started(self) -> bool:
        """Whether there is anything in the average yet."""
        return self._count > 0

    @torch.no_grad()
    def update(self, trainee: Trainee, iteration: int) -> None:
        """Take up the weights after `iteration` finished iterations."""
        if iteration < self._first:
            return
        self._count += 1
        if self.config.kind == "tail":
            share = 1 / self._count
        else:
            share = 1 - min(self.config.decay, (1 + self._count) / (10 + self._count))
        average: list[Tensor] = [*self._averaged.segmentor.parameters()]
        torch._foreach_lerp_(average, [*trainee.segmentor.parameters()], share)

    @torch.no_grad()
    def apply(self, trainee: Trainee, batches: Iterable[Tensor], dtype: torch.dtype | None) -> Trainee:
        """The trainee with averaged weights, in evaluation mode, until the next update.

        Args:
            trainee: its training heads are taken as they are.
            batches: images as the segmentor takes them, for the statistics of batch normalisation.
            dtype: of autocast, or None for none, as in training.
        """
        averaged = self._averaged
        averaged.training_heads.load_state_dict(trainee.training_heads.state_dict())
        recompute_batch_norm(averaged.segmentor, batches, dtype)
        return averaged.eval()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resume needs."""
        weights = {name: value.detach() for name, value in self._averaged.segmentor.named_parameters()}
        return {**weights, "count": torch.tensor(self._count)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True) -> None:
        """Restore what `state_dict` gave. Raises RuntimeError when names or shapes differ."""
        weights = dict(self._averaged.segmentor.named_parameters())
        different = {*weights, "count"} ^ set(state)
        different |= {name for name in weights.keys() & state.keys() if weights[name].shape != state[name].shape}
        if different:
            raise RuntimeError(f"not the average of this segmentor: {', '.join(sorted(different)[:3])}")
        for name, value in weights.items():
            value.copy_(state[name])
        self._count = int(state["count"])


@torch.no_grad()
def recompute_batch_norm(network: nn.Module, batches: Iterable[Tensor], dtype: torch.dtype | None) -> None:
    """Set the running mean and variance of every batch normalisation to their mean over batches.

    Everything else computes as in evaluation, where nothing is dropped.

    Args:
        network: left in evaluation mode.
        batches: what it is run on, on its device.
        dtype: of autocast, or None for none.
    """
    norms = [module for module in network.eval().modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over what it sees
        norm.train()
    for images in batches:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
