"""Products with class vectors: values, gradients, layouts."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from pipeline.losses.shared.class_products import EmbeddingMap, class_indicators, class_sums

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
    indicators = class_indicators(labels, 3, torch.float64)
    sums = class_sums(embeddings, indicators)
    for image in range(2):
        for label in range(3):
            torch.testing.assert_close(sums[image, label], embeddings[image][:, labels[image] == label].sum(1))
    assert torch.equal(EmbeddingMap(embeddings).class_sums(indicators), sums)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("images", [1, 2])
def test_similarities(layout: torch.memory_format, images: int) -> None:
    embeddings, _ = maps(layout, images)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    expected = vectors @ embeddings.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(EmbeddingMap(embeddings).class_similarities(vectors), expected)


def both_products(embeddings: torch.Tensor, vectors: torch.Tensor, indicators: torch.Tensor) -> torch.Tensor:
    """Sums that the vectors of the second product depend on, as class anchors do."""
    pixels = EmbeddingMap(embeddings)
    sums = pixels.class_sums(indicators).sum(0)
    return pixels.class_similarities(vectors * sums).square().sum() + sums.pow(3).sum()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_gradient_of_both_products_in_the_layout_of_the_map(layout: torch.memory_format) -> None:
    embeddings, labels = maps(layout)
    indicators = class_indicators(labels, 3, torch.float64)
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(both_products, (embeddings, vectors, indicators))
    (gradient,) = torch.autograd.grad(both_products(embeddings, vectors, indicators), embeddings)
    assert gradient.is_contiguous(memory_format=layout)


def test_a_graph_that_is_kept_gives_the_same_gradient_again() -> None:
    embeddings, labels = maps(torch.contiguous_format)
    result = both_products(
        embeddings, torch.ones(3, 4, dtype=torch.float64), class_indicators(labels, 3, torch.float64)
    )
    first = torch.autograd.grad(result, embeddings, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(result, embeddings)[0])


def test_nothing_outlives_the_graph() -> None:
    """No reference cycle keeps a map alive until the garbage collector runs."""
    embeddings, labels = maps(torch.contiguous_format)
    pixels = EmbeddingMap(embeddings)
    pixels.class_sums(class_indicators(labels, 3, torch.float64)).sum().backward()
    alive = weakref.ref(pixels.values)
    gc.disable()
    try:
        del pixels
        assert alive() is None
    finally:
        gc.enable()


def test_one_of_the_two_may_be_without_a_gradient() -> None:
    embeddings, _ = maps(torch.contiguous_format)
    vectors = torch.randn(3, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(EmbeddingMap(embeddings).class_similarities(vectors).sum(), embeddings)
    torch.testing.assert_close(gradient, vectors.sum(0)[None, :, None, None].expand_as(gradient))
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(EmbeddingMap(embeddings.detach()).class_similarities(vectors).sum(), vectors)
    torch.testing.assert_close(gradient, embeddings.sum((0, 2, 3)).expand_as(gradient))
