"""One optimiser step: forward, losses, backward, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.compute.devices import autocast_dtype
from pipeline.compute.random_streams import stream_seed
from pipeline.losses.shared.distributed import own_rank
from pipeline.losses.shared.term import LossTerm, TermOutput
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.config import TrainConfig
from pipeline.training.distributed.data_parallel import ParallelLoss
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.helpers.help import Helpers
from pipeline.training.inputs import network_input
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import learning_rate_factor, set_learning_rates
from pipeline.training.state import TrainingState

Batch = tuple[Tensor, Tensor]
"""Images uint8 `[B,3,h,w]` and labels `[B,h,w]`."""


@dataclass(frozen=True)
class Objective:
    """What a training minimises.

    Attributes:
        method: the settings.
        term: its loss term, on the device of the training; not called before its warm-up ends nor after its end, so
            that there it costs nothing.
        supervised: its supervised loss.
        helpers: further networks that a step learns from; None for none.
    """

    method: MethodConfig
    term: LossTerm
    supervised: SupervisedLoss
    helpers: Helpers | None = None


class TrainingStep:
    """Takes one optimiser step after the other.

    Args:
        trainee: on `device` already.
        objective: what is minimised.
        config: the loop's settings.
        seed: the branch's seed; what a step draws comes from streams of (seed, iteration), so that a resume is exact.
        device: where it runs.
        watch: is shown every loss and gradient norm.
        mark: is called with the name of each part of a step when it is over.
    """

    def __init__(
        self,
        trainee: Trainee,
        objective: Objective,
        config: TrainConfig,
        *,
        seed: int,
        device: torch.device,
        watch: FiniteWatch,
        mark: Callable[[str], None],
    ) -> None:
        self.dtype = autocast_dtype(config.precision, device)
        self.term_iterations = objective.method.term_iterations(config.iterations)
        self._trainee = trainee
        self._objective = objective
        self._config = config
        self._seed = seed
        self._device = device
        self._watch = watch
        self._mark = mark
        self._term_name = "contrast" if objective.method.is_contrastive else "loss_term"
        self._generator = torch.Generator(device=device)
        self._parallel_loss = ParallelLoss(trainee, self._loss)

    def __call__(self, parts: Sequence[Batch], state: TrainingState) -> bool:
        """One step of the optimiser on the mean gradient of the parts.

        Args:
            parts: batches of equal size; more than one where gradients are accumulated.
            state: its optimiser steps, and its means and progress are brought up to date.

        Returns:
            False where a loss or gradient is known not to be finite; no weight has changed then.
        """
        config, optimizer, progress = self._config, state.optimizer, state.progress
        set_learning_rates(optimizer, learning_rate_factor(progress.iteration, config.iterations, config.schedule))
        optimizer.zero_grad(set_to_none=True)
        for part, (images, labels) in enumerate(parts):
            last = part == len(parts) - 1
            with nullcontext() if last else self._parallel_loss.unsynchronised():
                loss = self._parallel_loss(images, labels, part, state)
                if not self._watch.add(loss, progress.iteration):
                    return False
                (loss if len(parts) == 1 else loss / len(parts)).backward()  # type: ignore[no-untyped-call]
            self._mark("backward")
        if config.gradient_clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(self._trainee.parameters(), config.gradient_clip_norm)
            state.means.add("gradient_norm", norm)
            if not self._watch.add(norm, progress.iteration):
                return False
        optimizer.step()
        if self._objective.helpers is not None:
            self._objective.helpers.update(self._trainee)
        if progress.iteration in self.term_iterations:
            progress.contrast_steps += 1
        progress.iteration += 1
        if state.average is not None:
            state.average.update(self._trainee, progress.iteration)
        self._mark("optimiser")
        return True

    def attempt(self, images: Tensor, labels: Tensor, state: TrainingState) -> None:
        """Forward and backward as in a step, to see whether they fit into memory; the training is void afterwards.

        Args:
            images: `[B,3,h,w]` uint8, in any memory.
            labels: `[B,h,w]` train ids.
            state: of the training.
        """
        state.optimizer.zero_grad(set_to_none=True)
        self._loss(images, labels, 0, state).backward()  # type: ignore[no-untyped-call]

    def _loss(self, images: Tensor, labels: Tensor, part: int, state: TrainingState) -> Tensor:
        trainee, objective, iteration = self._trainee, self._objective, state.progress.iteration
        purpose = f"iteration {iteration}" if part == 0 else f"part {part} of iteration {iteration}"
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        self._mark("upload")
        with_term = iteration in self.term_iterations
        # Dropout draws from torch's global generator: so that a run and its resume draw alike, and ranks do not.
        of_rank = f" on rank {own_rank()}" if own_rank() else ""
        torch.manual_seed(stream_seed(f"layers of {purpose}{of_rank}", self._seed))
        ignore_index = objective.supervised.supervision.ignore_index
        normalised, labels = network_input(trainee.segmentor, images, labels, ignore_index=ignore_index)
        with torch.autocast(self._device.type, dtype=self.dtype, enabled=self.dtype is not None):
            helped = (
                None if objective.helpers is None else objective.helpers.step(images, normalised, labels, ignore_index)
            )
            output = trainee(normalised if helped is None else helped.images, embed=with_term)
        self._mark("forward")
        supervised = objective.supervised((output if helped is None else helped.labelled(output)).logits, labels)
        state.means.add_all(supervised.values)
        loss = supervised.loss
        further: Mapping[str, Any] = {}
        if helped is not None:
            self._generator.manual_seed(stream_seed(f"helpers of {purpose}", self._seed))
            help_output = helped.loss(output, self._generator)
            loss = loss + help_output.loss
            state.means.add_all(help_output.statistics)
            output, labels, further = helped.for_term(output)
        self._mark("loss")
        if with_term:
            self._generator.manual_seed(stream_seed(f"anchors of {purpose}", self._seed))
            term: TermOutput = objective.term(
                output, labels, heads=trainee.term_heads, generator=self._generator, **further
            )
            loss = loss + objective.method.settings.weight * term.loss
            state.means.add_all({self._term_name: term.loss, **term.statistics})
            self._mark("contrast")
        return loss
