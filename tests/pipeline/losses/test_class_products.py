"""Products with class vectors: values, gradients, layouts."""

from __future__ import annotations

import pytest
import torch

from pipeline.losses.class_products import class_indicators, class_similarities, class_sums

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def maps(layout: torch.memory_format, images: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(images, 4, 3, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(-1, 4, (images, 3, 5), generator=generator)
    return embeddings.to(memory_format=layout).requires_grad_(), labels


def test_indicators() -> None:
    labels = torch.tensor([[[0, 2, 255], [-1, 1, 3]]])
    expected = torch.tensor([[[1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]]]).float()
    assert torch.equal(class_indicators(labels, 3, torch.float32), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums(layout: torch.memory_format) -> None:
    embeddings, labels = maps(layout)
    sums = class_sums(embeddings, class_indicators(labels, 3, torch.float64))
    for image in range(2):
        for label in range(3):
            expected = embeddings[image][:, labels[image] == label].sum(1)
            torch.testing.assert_close(sums[image, label], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [1, 2])
def test_similarities(layout: torch.memory_format, images: int) -> None:
    embeddings, _ = maps(layout, images)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    expected = vectors @ embeddings.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(class_similarities(vectors, embeddings), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_the_layout_of_the_map(layout: torch.memory_format) -> None:
    embeddings, labels = maps(layout)
    indicators = class_indicators(labels, 3, torch.float64)
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: class_sums(e, indicators), (embeddings,))
    assert torch.autograd.gradcheck(class_similarities, (vectors, embeddings))
    for product in (class_sums(embeddings, indicators), class_similarities(vectors, embeddings)):
        (gradient,) = torch.autograd.grad(product.square().sum(), embeddings)
        assert gradient.is_contiguous(memory_format=layout)


def test_one_of_the_two_may_be_without_a_gradient() -> None:
    embeddings, _ = maps(torch.contiguous_format)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(class_similarities(vectors, embeddings).sum(), embeddings)
    torch.testing.assert_close(gradient, vectors.sum(0)[None, :, None, None].expand_as(gradient))
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(class_similarities(vectors, embeddings.detach()).sum(), vectors)
    torch.testing.assert_close(gradient, embeddings.sum((0, 2, 3)).expand_as(gradient))
