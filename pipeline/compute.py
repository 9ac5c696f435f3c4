"""Which device, threads and precision torch computes with."""

from __future__ import annotations

from typing import Literal

import torch

from serving.errors import UserError


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
