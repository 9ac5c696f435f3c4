"""The loss of a step by all ranks, each with its part of the batch, and its gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.losses.shared.distributed import world_size

# None is a mistake: a loss term is off until its warm-up ends, the weights of 1x1 convolutions have two layouts, and
# torch before 2.13 does not know the new name of `broadcast_buffers`.
_EXPECTED = (
    "find_unused_parameters=True was specified|Grad strides do not match bucket view strides|"
    "`broadcast_buffers` is deprecated"
)


class ParallelLoss:
    """Calls `loss`; with ranks, the gradients of the weights are the mean over them after each backward pass.

    The losses here are those of the global batch, so that this mean is the gradient of one process that has all of it
    (`pipeline.losses.shared.distributed`).

    Args:
        trainee: whose weights `loss` depends on, on its device, the same on every rank.
        loss: computes the scalar loss of this rank's part.
    """

    def __init__(self, trainee: nn.Module, loss: Callable[..., Tensor]) -> None:
        self._loss = loss
        self._parallel: DistributedDataParallel | None = None
        if world_size() > 1:
            warnings.filterwarnings("ignore", f".*({_EXPECTED})")
            # Unused parameters are looked for even where there are none: else the buckets that gradients are summed in
            # would change after the first step, and a resumed training would round its sums otherwise. No buffer need
            # be sent around: normalisation is synchronised, and banks are alike.
            self._parallel = DistributedDataParallel(
                _Loss(trainee, loss),
                broadcast_buffers=False,
                find_unused_parameters=True,
                gradient_as_bucket_view=True,  # which saves a copy to and fro
            )

    def __call__(self, *arguments: Any) -> Tensor:
        """The loss."""
        loss: Tensor = self._loss(*arguments) if self._parallel is None else self._parallel(*arguments)
        return loss

    def unsynchronised(self) -> AbstractContextManager[None]:
        """Within the block gradients stay those of this rank: of a part of a step that is not its last."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()


class _Loss(nn.Module):
    def __init__(self, trainee: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.trainee = trainee
        self._loss = loss

    def forward(self, *arguments: Any) -> Tensor:
        return self._loss(*arguments)
