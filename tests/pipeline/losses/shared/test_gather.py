"""Reading rows of an embedding map."""

from __future__ import annotations

import pytest
import torch

from pipeline.losses.shared.gather import embedding_map, embeddings_at, gather_pixels
from pipeline.models.training_heads.projection import ProjectionHead


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


def test_projected_at_some_pixels_is_projected_everywhere_and_read_there() -> None:
    head = ProjectionHead(6, 4).double()
    features = torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    image, pixel = torch.tensor([0, 1, 1]), torch.tensor([11, 0, 5])
    weights = torch.randn(3, 4, dtype=torch.float64)
    inputs = [features, *head.parameters()]
    unprojected, everywhere = head.unprojected(features), head(features)
    torch.testing.assert_close(embedding_map(unprojected), everywhere)
    assert unprojected.shape == everywhere.shape == embedding_map(everywhere).shape
    rows, expected = embeddings_at(unprojected, image, pixel), embeddings_at(everywhere, image, pixel)
    torch.testing.assert_close(rows, expected)
    got = torch.autograd.grad((rows * weights).sum(), inputs)
    for gradient, wanted in zip(got, torch.autograd.grad((expected * weights).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, wanted)
    second = unprojected[1:]
    torch.testing.assert_close(embeddings_at(second, image[1:] - 1, pixel[1:]), expected[1:])


def test_under_autocast_both_are_computed_in_its_precision_and_normalised_in_single() -> None:
    head, features = ProjectionHead(8, 4), torch.randn(1, 8, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        everywhere, unprojected = head(features), head.unprojected(features)
    image, pixel = torch.tensor([0, 0]), torch.tensor([3, 7])
    assert torch.equal(embedding_map(unprojected), everywhere)  # also where autocast is off by then
    rows = embeddings_at(unprojected, image, pixel)
    assert unprojected.hidden.dtype == torch.bfloat16 and rows.dtype == torch.float32
    torch.testing.assert_close(rows, embeddings_at(everywhere, image, pixel), rtol=0, atol=2e-2)
