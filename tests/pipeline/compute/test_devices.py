"""Device, precision and threads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.compute.devices import autocast_dtype, keep_large_depthwise_in_float32, select_device, use_threads


def test_auto_takes_cuda_exactly_where_torch_sees_it() -> None:
    assert select_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert select_device("cpu").type == "cpu"


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype("fp32", cpu) is None
    assert autocast_dtype("bf16", cpu) is torch.bfloat16
    assert autocast_dtype("auto", cpu) in (None, torch.bfloat16)


def test_threads_are_bounded() -> None:
    before = torch.get_num_threads()
    use_threads(1)
    assert torch.get_num_threads() == 1
    use_threads(before)


@pytest.mark.parametrize(
    ("convolution", "dtype"),
    [
        (nn.Conv2d(8, 8, 5, groups=8), torch.float32),
        (nn.Conv2d(8, 8, 3, groups=8), torch.bfloat16),
        (nn.Conv2d(8, 8, 5), torch.bfloat16),
        (nn.Conv2d(8, 16, 5, groups=4), torch.bfloat16),
    ],
)
def test_only_large_depthwise_convolutions_leave_autocast(convolution: nn.Conv2d, dtype: torch.dtype) -> None:
    model = nn.Sequential(convolution)
    state = list(model.state_dict())
    keep_large_depthwise_in_float32(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.rand(1, 8, 9, 9, requires_grad=True).bfloat16())
    assert output.dtype is dtype
    output.float().sum().backward()
    assert convolution.weight.grad is not None
    assert list(model.state_dict()) == state
