"""Reading rows of an embedding map."""

from __future__ import annotations

import pytest
import torch

from pipeline.losses.shared.gather import gather_pixels


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_and_their_gradient(layout: torch.memory_format, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2, 5, 3, 4, generator=generator).to(dtype, memory_format=layout).requires_grad_()
    image, pixel = torch.tensor([0, 1, 1]), torch.tensor([11, 0, 5])
    rows = gather_pixels(embeddings, image, pixel)
    expected = torch.stack([embeddings[0, :, 2, 3], embeddings[1, :, 0, 0], embeddings[1, :, 1, 1]])
    assert torch.equal(rows, expected)
    weights = torch.randn(3, 5, generator=generator).to(dtype)
    (gradient,) = torch.autograd.grad((rows * weights).sum(), embeddings)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), embeddings)
    assert torch.equal(gradient, wanted)
    assert gradient.is_contiguous(memory_format=layout)


def test_gradcheck_and_no_rows() -> None:
    embeddings = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    image, pixel = torch.tensor([0, 1]), torch.tensor([3, 0])
    assert torch.autograd.gradcheck(lambda e: gather_pixels(e, image, pixel), (embeddings,))
    nothing = gather_pixels(embeddings, image[:0], pixel[:0])
    assert nothing.shape == (0, 3)
    (gradient,) = torch.autograd.grad(nothing.sum(), embeddings)
    assert torch.equal(gradient, torch.zeros_like(embeddings))
