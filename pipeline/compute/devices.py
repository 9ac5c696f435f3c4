"""Which device, threads and precision torch computes with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from serving.contract.errors import UserError


def select_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` takes CUDA where torch sees it. Raises UserError for `cuda` without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device: cuda was asked for, but torch sees no CUDA device; set it to auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, or None for plain fp32; `auto` takes bf16 where the hardware computes in it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bf16" if native else "fp32"
    return torch.bfloat16 if precision == "bf16" else None


def use_threads(count: int) -> None:
    """Bound torch's CPU threads; results are bit-reproducible only at a fixed count."""
    torch.set_num_threads(count)


def keep_large_depthwise_in_float32(model: nn.Module) -> None:
    """Run depthwise convolutions of 5x5 and larger in fp32 under bf16 autocast on the CPU.

    Their bf16 backward in oneDNN takes 3 to 4 times as long as the fp32 one, and they dominate the step of an
    EfficientNet: a third of it is saved (`python -m benchmarks.training`). Instances are changed, not the class; a
    stripped segmentor is built anew and knows nothing of it.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and min(module.kernel_size) >= 5:
            module.forward = functools.partial(_float32_forward, module.forward)  # type: ignore[method-assign]


def _float32_forward(forward: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return forward(features.float())
