"""The kernel that repeats its bits computes what the other one does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.shared.likelihood import as_rows, negative_log_likelihood


@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_pixels_give_the_same_sum_and_gradient(weighted: bool):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 7, 9, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.randint(0, 6, (2, 7, 9), generator=generator)
    labels[labels == 5] = 255
    weight = torch.rand(5, dtype=torch.float64, generator=generator) if weighted else None
    total = negative_log_likelihood(logits.log_softmax(1), labels, weight=weight, ignore_index=255)
    rows, flat = as_rows(logits.log_softmax(1), labels)
    by_rows = F.nll_loss(rows, flat, weight=weight, ignore_index=255, reduction="sum")
    torch.testing.assert_close(by_rows, total, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(by_rows, logits), torch.autograd.grad(total, logits))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA: the kernel that is chosen there")
def test_deterministic_algorithms_are_enough_on_cuda():
    logits = torch.randn(2, 5, 7, 9, device="cuda", requires_grad=True)
    labels = torch.randint(0, 5, (2, 7, 9), device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        negative_log_likelihood(logits.log_softmax(1), labels, ignore_index=255).backward()
    finally:
        torch.use_deterministic_algorithms(False)
