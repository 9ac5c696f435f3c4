"""TensorFloat-32 without a GPU: in PyTorch on any device, what tensor cores do to products in single precision.

The factors are rounded to 10 bits of mantissa, and sums are kept in 23 (NVIDIA, TensorRT's `BuilderFlag.TF32`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_DROPPED = 13  # bits of float32's 23

# Operator -> position of its first factor; the second follows.
_PRODUCTS = {
    torch.ops.aten.convolution: 0,
    torch.ops.aten.mm: 0,
    torch.ops.aten.bmm: 0,
    torch.ops.aten.addmm: 1,
    torch.ops.aten.baddbmm: 1,
}


def tf32_products() -> AbstractContextManager[object]:
    """Within this context every convolution and matrix product in single precision takes its factors rounded."""
    mode: AbstractContextManager[object] = _TF32Products()  # type: ignore[no-untyped-call]
    return mode


class _TF32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of each operator."""
        first = _PRODUCTS.get(func.overloadpacket)
        if first is not None:
            factors = tuple(round_to_tf32(factor) for factor in args[first : first + 2])
            args = (*args[:first], *factors, *args[first + 2 :])
            return func(*args, **(kwargs or {}))
        # Inference mode shows operators that are made of others as they are, such as conv2d and einsum.
        with self:
            parts = func.decompose(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if parts is NotImplemented else parts


def round_to_tf32(values: Tensor) -> Tensor:
    """`values` float32 with 10 bits of mantissa, ties to even; infinities and NaN stay. Other types come back as is."""
    if values.dtype != torch.float32:
        return values
    bits = values.contiguous().view(torch.int32)
    last = 1 << _DROPPED
    rounded = (bits + (last // 2 - 1) + ((bits >> _DROPPED) & 1)) & -last
    return torch.where(values.isfinite(), rounded.view(torch.float32), values)
