"""Section `train.speed` of params.yaml: what makes a GPU faster and changes bits, and what makes it repeat them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class SpeedConfig:
    """Switches that change the last bits of a training, all off by default.

    Attributes:
        cudnn_benchmark: cuDNN times its algorithms for every shape and takes the fastest.
        fused_optimizer: one kernel updates all weights.
        tf32: fp32 products and convolutions are computed in TensorFloat-32.
    """

    cudnn_benchmark: bool = False
    fused_optimizer: bool = False
    tf32: bool = False


@contextmanager
def backends(config: SpeedConfig, *, deterministic: bool) -> Iterator[None]:
    """Within the block torch computes as the switches say; afterwards as before.

    Args:
        config: the switches.
        deterministic: an operation that has no deterministic implementation raises a RuntimeError instead of giving
            other bits from run to run. On the CPU, where training repeats its bits anyway, this costs nothing.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    determinism: Any = torch.utils.deterministic  # its one setting is an attribute that its stubs lack
    filled = determinism.fill_uninitialized_memory
    cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = config.cudnn_benchmark, config.tf32, config.tf32
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True)
        determinism.fill_uninitialized_memory = False  # no operation here reads what it has not written
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.use_deterministic_algorithms(strict, warn_only=warned)
        determinism.fill_uninitialized_memory = filled
