"""Unreliable pixels as negatives: of the right anchors only, by a slow reference in float64, or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.unreliable import Unreliable, info_nce_with_unreliable, sample_unreliable
from pipeline.models.network.head import Logits, TraineeOutput

CLASSES = 4


def unit(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(values, dim=1)


def negative_of(seed: int = 0, rows: int = 7) -> Tensor:
    return torch.rand(rows, CLASSES, generator=torch.Generator().manual_seed(seed)) < 0.5


@pytest.mark.parametrize("bank", [False, True])
def test_value_and_gradients_are_those_of_the_definition(bank: bool, reference_info_nce: Callable[..., Tensor]) -> None:
    labels = torch.tensor([0, 0, 1, 1, 1, 3])
    anchors, negatives = unit(6, 5, seed=0).requires_grad_(), unit(7, 5, seed=1).requires_grad_()
    keys = unit(9, 5, seed=2) if bank else None
    key_labels = torch.tensor([0, 1, 2, 3, -1, 0, 1, 2, -1]) if bank else None
    excluded = negative_of()

    def loss(anchors: Tensor, negatives: Tensor) -> Tensor:
        return info_nce_with_unreliable(
            anchors, labels, keys, key_labels, negatives, excluded, temperature=0.3, base_temperature=0.2
        )

    among = torch.ones(6, 9 if bank else 6, dtype=torch.bool)
    if not bank:
        among.fill_diagonal_(False)
    selection = torch.cat([among, torch.stack([excluded[:, label] for label in labels])], dim=1)
    all_keys = torch.cat([anchors if keys is None else keys, negatives])
    all_labels = torch.cat([labels if key_labels is None else key_labels, torch.full((7,), CLASSES)])
    expected = reference_info_nce(anchors, labels, all_keys, all_labels, 0.3, 0.2, selection)
    assert loss(anchors, negatives).item() == pytest.approx(expected.item(), rel=1e-12)
    wanted = torch.autograd.grad(expected, (anchors, negatives))
    found = torch.autograd.grad(loss(anchors, negatives), (anchors, negatives))
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(loss, (anchors, negatives))


def test_without_a_negative_of_theirs_it_is_the_contrast_itself() -> None:
    anchors, labels = unit(6, 5, seed=0), torch.tensor([0, 0, 1, 1, 2, 2])
    plain = info_nce(anchors, labels, temperature=0.1, base_temperature=0.07)
    nothing = torch.zeros(7, CLASSES, dtype=torch.bool)
    with_none = info_nce_with_unreliable(
        anchors, labels, None, None, unit(7, 5, seed=1), nothing, temperature=0.1, base_temperature=0.07
    )
    torch.testing.assert_close(with_none, plain, rtol=1e-12, atol=0)
    with_some = info_nce_with_unreliable(
        anchors, labels, None, None, unit(7, 5, seed=1), ~nothing, temperature=0.1, base_temperature=0.07
    )
    assert with_some > plain, "a negative can only cost"


def test_only_unreliable_pixels_are_drawn_each_once() -> None:
    embeddings = torch.arange(2 * 3 * 4, dtype=torch.float64).view(2, 1, 3, 4)
    unlikely = torch.zeros(2, CLASSES, 6, 8, dtype=torch.bool)
    unlikely[1, 2, 2:4, :] = True  # the row of four cells in the middle of the second image
    for most, usable in ((3, 3), (100, 4)):
        generator = torch.Generator().manual_seed(0)
        rows, excluded = sample_unreliable(embeddings, Unreliable(unlikely, most), generator)
        used = rows[excluded.any(1)].flatten().tolist()
        assert len(used) == len(set(used)) == usable
        assert set(used) <= {16.0, 17.0, 18.0, 19.0}
        assert torch.equal(excluded[excluded.any(1)], torch.tensor([[False, False, True, False]] * usable))


@pytest.mark.parametrize("memory", ["none", "both"])
def test_pixel_contrast_takes_them_and_its_bank_does_not(memory: str) -> None:
    config = PixelContrastConfig(max_views=4, embedding_dim=5, memory=memory)
    labels = torch.full((2, 6, 8), 255)
    labels[0, :3], labels[0, 3:] = 0, 1
    unlikely = torch.zeros(2, CLASSES, 6, 8, dtype=torch.bool)
    unlikely[1, :2] = True
    losses = {}
    for most in (0, 8):
        term = PixelContrast(config, num_classes=CLASSES, ignore_index=255, training_images=4)
        generator = torch.Generator().manual_seed(0)
        for step in range(2):
            embeddings = unit(2, 5, 6, 8, seed=step).float().requires_grad_()
            output = TraineeOutput(Logits(unit(2, CLASSES, 6, 8, seed=9).float()), (embeddings,))
            unreliable = Unreliable(unlikely, most) if most else None
            found = term(output, labels, heads=torch.nn.ModuleDict(), generator=generator, unreliable=unreliable)
        found.loss.backward()
        assert embeddings.grad is not None and embeddings.grad.isfinite().all()
        reached = embeddings.grad[1].flatten(1).any(0).sum()
        assert (reached == 8) if most else (reached == 0), "the gradient reaches the unreliable pixels"
        losses[most] = found.loss.item()
        if term.bank is not None:
            assert term.bank.rings.count[:, 2:].eq(0).all(), "no unreliable pixel is in the bank"
            assert term.bank.rings.count[0, :2].eq(2).all()
    assert losses[8] > losses[0]


@pytest.mark.parametrize("memory", ["none", "both"])
def test_no_anchor_or_one_class_without_negatives_is_an_exact_zero(memory: str) -> None:
    config = PixelContrastConfig(max_views=4, embedding_dim=5, memory=memory)
    for label, negatives in ((255, True), (0, False)):
        term = PixelContrast(config, num_classes=CLASSES, ignore_index=255, training_images=4)
        unlikely = torch.full((2, CLASSES, 6, 8), negatives)
        for step in range(2):
            embeddings = unit(2, 5, 6, 8, seed=step).float().requires_grad_()
            output = TraineeOutput(Logits(unit(2, CLASSES, 6, 8, seed=9).float()), (embeddings,))
            found = term(
                output,
                torch.full((2, 6, 8), label),
                heads=torch.nn.ModuleDict(),
                generator=torch.Generator().manual_seed(0),
                unreliable=Unreliable(unlikely, 8),
            )
            found.loss.backward()
            assert found.loss.item() == 0
            assert embeddings.grad is not None and embeddings.grad.eq(0).all()
