"""Batch normalisation of two ranks' halves is that of one process with the whole batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pipeline.compute.torchvision_shim  # noqa: F401 - timm imports torchvision

# isort: split
from timm.layers import BatchNormAct2d

from pipeline.losses.shared.distributed import own_part, world_size
from pipeline.training.averaging import recompute_batch_norm
from pipeline.training.distributed.batch_norm import synchronise_batch_norm
from tests.pipeline.training.distributed.ranks import on_two_ranks

TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2}
CPU = torch.device("cpu")


def features(seed: int, dtype: torch.dtype, *, channels_last: bool) -> Tensor:
    """This process's part of a batch of six, far from zero mean and different from image to image."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(6, 5, 7, 4, generator=generator, dtype=torch.float64)
    whole = (whole * torch.arange(1, 7).reshape(6, 1, 1, 1) + torch.arange(6).reshape(6, 1, 1, 1) + 3).to(dtype)
    own = own_part(whole).clone()
    return own.contiguous(memory_format=torch.channels_last) if channels_last else own


def network(dtype: torch.dtype) -> nn.Sequential:
    """A normalisation with an activation in place, and a plain one; between them all weights have a gradient."""
    torch.manual_seed(0)
    norms = nn.Sequential(BatchNormAct2d(5, momentum=0.01), nn.BatchNorm2d(5))
    for parameter in norms.parameters():
        nn.init.normal_(parameter, mean=1)
    return norms.to(torch.float64 if dtype is torch.float64 else torch.float32)


def compute() -> dict[str, dict[str, Any]]:
    """Two forward and backward passes, and statistics recomputed, in every type and memory format."""
    results: dict[str, dict[str, Any]] = {}
    for name in TOLERANCES:
        dtype = getattr(torch, name)
        for channels_last in (False, True):
            norms = network(dtype)
            names = list(norms.state_dict())
            synchronise_batch_norm(norms, CPU)
            assert list(norms.state_dict()) == names, "checkpoints need not know"
            norms = copy.deepcopy(norms)  # as an average of weights or a mean teacher is made
            result: dict[str, Any] = {}
            for step in range(2):
                given = features(step, dtype, channels_last=channels_last).requires_grad_()
                output = norms(given)
                loss = (output.double() * torch.linspace(-1, 1, 28).reshape(7, 4)).square().sum()
                loss.backward()
                result |= {f"output {step}": output.detach(), f"gradient {step}": given.grad}
            result |= {f"sum of {key}": value.grad for key, value in norms.named_parameters()}
            result |= {f"same {key}": value.clone() for key, value in norms.named_buffers()}
            recompute_batch_norm(norms, [features(2 + i, dtype, channels_last=channels_last) for i in range(3)], None)
            result |= {f"same {key}, recomputed": value for key, value in norms.named_buffers()}
            result["evaluated"] = norms(features(9, dtype, channels_last=channels_last)).detach()
            results[f"{name}, {channels_last=}"] = result
    return results


def test_without_ranks_nothing_is_changed() -> None:
    assert world_size() == 1
    norms = network(torch.float32)
    synchronise_batch_norm(norms, CPU)
    assert all("forward" not in vars(module) for module in norms.modules())


@pytest.mark.slow
def test_two_ranks_normalise_as_one_process_with_the_same_batch(tmp_path: Path) -> None:
    ranks = on_two_ranks(compute, tmp_path)
    alone = compute()
    compared = 0
    for case, expected in alone.items():
        tolerance = TOLERANCES[case.partition(",")[0]]
        for key, value in expected.items():
            first, second = (rank[case][key] for rank in ranks)
            if key.startswith("same"):
                assert torch.equal(first, second), f"{case}: {key} differs between the ranks"
                found = first
            else:
                found = first + second if key.startswith("sum") else torch.cat([first, second])
            # The second normalisation takes most of the first one's gradients back: what is left is small beside them.
            scale = float(value.double().abs().max()) * (10 if key.startswith("sum") else 1)
            torch.testing.assert_close(
                found.double(), value.double(), rtol=tolerance, atol=tolerance * scale, msg=f"{case}: {key}"
            )
            compared += 1
    assert compared == 6 * (4 + 4 + 6 + 6 + 1)


@pytest.mark.slow
def test_the_comparison_sees_halves_that_are_normalised_alone(tmp_path: Path) -> None:
    halves = on_two_ranks(compute_apart, tmp_path)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.cat(halves), compute_apart(), rtol=1e-2, atol=1e-2)


def compute_apart() -> Tensor:
    """What batch normalisation makes of a rank's half when nothing is synchronised."""
    output: Tensor = network(torch.float64)(features(0, torch.float64, channels_last=False))
    return output.detach()
