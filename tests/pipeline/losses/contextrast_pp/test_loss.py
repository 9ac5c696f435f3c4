"""Contextrast++: adaptive fusion, class-prioritised anchors, the anchor bank and its loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.contextrast.loss import Contextrast, ContextrastConfig
from pipeline.losses.contextrast_pp.adaptive_fusion import AdaptiveFusion, ChannelAttention
from pipeline.losses.contextrast_pp.loss import (
    ContextrastPlusPlus,
    ContextrastPlusPlusConfig,
    balanced_choice,
    prioritise,
)
from pipeline.models.network.head import Logits, TraineeOutput

SIZES = ((8, 12), (4, 6), (2, 3))
WEIGHTS = (1.0, 0.7, 0.3)


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[TraineeOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = tuple(
        F.normalize(torch.randn(2, 6, *size, generator=generator, dtype=dtype), dim=1).requires_grad_()
        for size in SIZES
    )
    labels = torch.randint(0, 3, (2, 4, 6), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return TraineeOutput(Logits(torch.randn(2, 3, 8, 12, generator=generator)), embeddings), labels


def build(**config: object) -> tuple[ContextrastPlusPlus, nn.ModuleDict]:
    config = {"layer_weights": WEIGHTS, "embedding_dim": 6, **config}
    term = ContextrastPlusPlus(ContextrastPlusPlusConfig(**config), num_classes=3, ignore_index=255, training_images=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return term, term.build_heads(3)


def step(term: ContextrastPlusPlus, heads: nn.ModuleDict, seed: int):
    output, labels = batch(seed)
    return term(output, labels, heads=heads, generator=torch.Generator().manual_seed(seed)), output


def test_training_starts_from_the_fixed_fusion() -> None:
    term, heads = build()
    plain = Contextrast(ContextrastConfig(layer_weights=WEIGHTS), num_classes=3, ignore_index=255, training_images=4)
    output, labels = batch()
    result, _ = step(term, heads, 0)
    expected = plain(output, labels, heads=nn.ModuleDict(), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(result.loss, expected.loss)  # the bank is empty: L_AA is 0
    assert result.statistics["anchor_loss"].item() == 0


def test_every_part_of_the_fusion_learns() -> None:
    term, heads = build()
    optimizer = torch.optim.SGD(heads.parameters(), lr=0.5)
    for seed in range(3):  # what starts at 0 opens the way for what lies behind it
        optimizer.zero_grad()
        step(term, heads, seed)[0].loss.backward()
        optimizer.step()
    assert sum(1 for _ in heads.parameters()) == 2 * (4 + 4)
    for name, parameter in heads.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_channel_attention_mixes_channels_that_tell_classes_apart_alike() -> None:
    attention = ChannelAttention()
    anchors = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [-1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    assert torch.equal(attention(anchors), anchors)
    nn.init.constant_(attention.strength, 1.0)
    nn.init.constant_(attention.sharpness, 1000.0)
    refined = attention(anchors) - anchors
    torch.testing.assert_close(refined[:, 0], 1.5 * anchors[:, 0])  # channels 0 and 1 attend to each other alike
    torch.testing.assert_close(refined[:, 1], 1.5 * anchors[:, 0])
    torch.testing.assert_close(refined[:, 2], anchors[:, 2])
    assert refined[3].eq(0).all()  # an absent class stays out


def test_fusion_by_hand() -> None:
    fusion = AdaptiveFusion(4, 0.3).double()
    local, deepest = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(fusion(local, deepest), 0.3 * local + 0.7 * deepest)
    nn.init.normal_(fusion.mlp[2].weight)
    expected = 0.3 * local + 0.7 * deepest + fusion.mlp(torch.cat([local, deepest], 1))
    torch.testing.assert_close(fusion(local, deepest), expected)
    assert torch.autograd.gradcheck(fusion, (local.requires_grad_(), deepest.requires_grad_()))


def test_the_deepest_layer_that_has_a_class_gives_its_anchor() -> None:
    anchors = [torch.full((4, 2), float(layer)) for layer in range(3)]
    present = [
        torch.tensor([True, True, True, False]),
        torch.tensor([True, True, False, False]),
        torch.tensor([True, False, False, False]),
    ]
    chosen, anywhere = prioritise(anchors, present)
    assert chosen[:3, 0].tolist() == [2, 1, 0]
    assert anywhere.tolist() == [True, True, True, False]


def test_every_stored_class_gives_as_many_anchors_as_the_poorest() -> None:
    valid = torch.zeros(7, 4, dtype=torch.bool)
    valid[:5, 0], valid[:2, 1], valid[:7, 3] = True, True, True
    taken = torch.zeros(7, 4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        chosen = balanced_choice(valid, generator)
        assert chosen.sum(0).tolist() == [2, 2, 0, 2]
        assert not (chosen & ~valid).any()
        taken += chosen
    assert (taken[:5, 0] > 0).all()
    assert (taken[:, 3] > 0).all()
    assert not balanced_choice(torch.zeros(3, 2, dtype=torch.bool), generator).any()


def test_the_anchor_loss_is_info_nce_against_the_stored_anchors(reference_info_nce) -> None:
    term, heads = build()
    step(term, heads, 0)
    assert term.bank.count.tolist() == [[1, 1, 1]]
    stored = term.bank.rows[0].clone()  # one anchor per class: nothing is left to chance
    result, output = step(term, heads, 1)
    labels = batch(1)[1]
    deepest = F.interpolate(labels[:, None].float(), size=SIZES[-1], mode="nearest-exact")[:, 0].long()
    pixels = output.embeddings[-1].permute(0, 2, 3, 1)
    anchors = F.normalize(torch.stack([pixels[deepest == label].mean(0) for label in range(3)]), dim=1)
    expected = reference_info_nce(anchors, torch.arange(3), stored, torch.arange(3), 0.1, 0.1)
    assert result.statistics["anchor_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(term.bank.rows[1], anchors.detach())


def test_the_bank_keeps_the_newest_without_a_gradient_and_resumes_exactly() -> None:
    term, heads = build(anchor_bank_size=3)
    for seed in range(5):
        result, _ = step(term, heads, seed)
    assert result.statistics["bank_fill"].item() == 1
    assert not term.bank.rows.requires_grad
    resumed, _ = build(anchor_bank_size=3)
    resumed.load_state_dict(term.state_dict())
    assert torch.equal(step(term, heads, 9)[0].loss, step(resumed, heads, 9)[0].loss)
    assert torch.equal(term.bank.rows, resumed.bank.rows)


def test_settings() -> None:
    config = ContextrastPlusPlusConfig()
    assert config.layer_weights == (1.0, 0.7, 0.3, 0.1)
    assert config.anchor_bank_size == 100
    with pytest.raises(ValueError, match="anchor_bank_size: expected at least 1, got 0"):
        ContextrastPlusPlusConfig(anchor_bank_size=0)
    assert build()[0].bank.sizes == (100,)
