"""Section `train.speed` of params.yaml: what makes a GPU faster and changes bits, and what makes it repeat them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.losses.shared.distributed import world_size
from serving.contract.errors import UserError


@dataclass(frozen=True)
class SpeedConfig:
    """Switches that change the last bits of a training, all off by default.

    Attributes:
        cudnn_benchmark: cuDNN times its algorithms for every shape and takes the fastest.
        fused_optimizer: one kernel updates all weights.
        tf32: fp32 products and convolutions are computed in TensorFloat-32.
        compile: `torch.compile` makes fused kernels of the network and its training heads, which takes a minute or more
            when a training starts. Validations, averages and what ships compute without it.
    """

    cudnn_benchmark: bool = False
    fused_optimizer: bool = False
    tf32: bool = False
    compile: bool = False


def compile_network(trainee: nn.Module, *, backend: str = "inductor") -> None:
    """Compile what a training step runs forward, at the first call; names of parameters and copies know nothing of it.

    Sizes are constants of the compiled code: every crop has the same.

    Args:
        trainee: a training's, or a part of it.
        backend: of `torch.compile`, that makes code of its graphs.

    Raises:
        UserError: several processes train.
    """
    if world_size() > 1:
        raise UserError(f"train.speed.compile: expected false with {world_size()} processes, where it is untried")
    trainee.compile(dynamic=False, backend=backend)


def is_compiler_failure(error: BaseException) -> bool:
    """Whether `torch.compile` failed, and not what it compiled."""
    from torch._dynamo.exc import TorchDynamoException  # only now: it takes half a second

    return isinstance(error, TorchDynamoException)


def compiler_failure(error: BaseException) -> UserError:
    """The one message about it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in lines if "compiler" in line.lower()), lines[0] if lines else type(error).__name__)
    return UserError(
        f"train.speed.compile: the network cannot be compiled here: {found.rstrip('.')}; install a C++ compiler (g++; "
        "on CUDA also Triton, which comes with torch on Linux), or set it to false"
    )


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
