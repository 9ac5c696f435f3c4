"""Batch normalisation whose statistics are those of the global batch.

On CUDA it is torch's `SyncBatchNorm`, which refuses tensors on the CPU. There the same is computed here: the mean and
variance of all ranks in the forward pass, and in the backward pass, by Ioffe and Szegedy, "Batch Normalization", ICML
2015, arXiv 1502.03167, section 3, the sums over all ranks of the gradients of both.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

import pipeline.compute.torchvision_shim  # noqa: F401 - timm imports torchvision

# isort: split
from timm.layers import BatchNormAct2d, convert_sync_batchnorm

from pipeline.losses.shared.distributed import world_size
from pipeline.training.distributed.direct import DirectExchange


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let every batch normalisation in `network` take the statistics of the global batch; nothing without ranks.

    Names of weights and buffers stay as they are. In evaluation mode nothing differs.

    Args:
        network: on `device` already, not itself a batch normalisation.
        device: where it trains.
    """
    if world_size() == 1:
        return
    if device.type == "cuda":
        convert_sync_batchnorm(network)
        return
    exchange = DirectExchange.connect()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = functools.partial(_forward, module, exchange)  # type: ignore[method-assign]


def _forward(norm: _BatchNorm, exchange: DirectExchange, features: Tensor) -> Tensor:
    """What `norm` computes of `features [B,C,...]`, as many on every rank."""
    if not norm.training:
        return type(norm).forward(norm, features)
    assert norm.affine and norm.track_running_stats, "as all of the networks here have it"
    mean, variance, count = _statistics(features.detach(), norm.weight.dtype, exchange)
    _track(norm, mean, variance, count)
    output: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
        features, norm.weight, norm.bias, mean, variance, norm.eps, count, exchange
    )
    return norm.act(norm.drop(output)) if isinstance(norm, BatchNormAct2d) else output


def _statistics(features: Tensor, dtype: torch.dtype, exchange: DirectExchange) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance `[C]` over all ranks, and how many values of each channel they are of."""
    channels = features.shape[1]
    unused = [torch.zeros(channels, dtype=dtype) for _ in range(2)]  # of this type are the results
    mean, variance = torch.batch_norm_update_stats(features, *unused, 0.0)  # type: ignore[call-arg, arg-type]
    # By the law of total variance, in float64: no cancellation that float32 could see.
    means, variances = exchange.gather(torch.stack([mean, variance]).double()).unbind(1)
    total = means.mean(0)
    variance = (variances + (means - total).square()).mean(0)
    return total.to(dtype), variance.to(dtype), world_size() * features.numel() // channels


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor, count: int) -> None:
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_((variance * (count / max(count - 1, 1))).to(norm.running_var.dtype), share)


class _Normalise(Function):
    """Normalise by statistics that all ranks' features made: they too have a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: int,
        exchange: DirectExchange,
    ) -> Tensor:
        ctx.save_for_backward(features, weight, mean, variance)
        ctx.eps, ctx.count, ctx.exchange = eps, count, exchange
        output: Tensor = torch.native_batch_norm(features, weight, bias, mean, variance, False, 0.0, eps)[0]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, mean, variance = ctx.saved_tensors
        if features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, features, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = ctx.exchange.gather(torch.stack([of_bias, of_weight]).double()).sum(0)
        of_mean, of_deviation = sums / ctx.count
        deviation = (variance.double() + ctx.eps).rsqrt()
        scale = weight.double() * deviation
        # The gradient as if mean and variance were constants, and what theirs add: three numbers of each channel.
        slope = -scale * deviation * of_deviation
        offset = -scale * of_mean - slope * mean.double()
        shape = (1, -1, *[1] * (features.ndim - 2))
        scale, slope, offset = (each.to(weight.dtype).reshape(shape) for each in (scale, slope, offset))
        of_features = torch.addcmul(offset, features, slope).addcmul_(gradient, scale).to(features.dtype)
        return of_features, of_weight, of_bias, None, None, None, None, None
