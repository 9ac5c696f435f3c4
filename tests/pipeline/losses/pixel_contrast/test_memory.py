"""The term pixel_contrast with its memory bank."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.sampling import sample_anchors
from pipeline.models.network.head import Logits, TraineeOutput
from serving.contract.errors import UserError


def batch(seed: int) -> tuple[TraineeOutput, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(2, 8, 8, 10, generator=generator), dim=1).requires_grad_()
    labels = torch.randint(0, 3, (2, 32, 40), generator=generator)
    labels[:, :4] = 255
    return TraineeOutput(Logits(torch.randn(2, 3, 8, 10, generator=generator)), (embeddings,)), labels


def term_with(**config: object) -> PixelContrast:
    config = {"max_views": 4, "max_samples": 64, "memory": "both", "embedding_dim": 8, **config}
    return PixelContrast(PixelContrastConfig(**config), num_classes=3, ignore_index=255, training_images=10)


def step(term: PixelContrast, seed: int):
    output, labels = batch(seed)
    return term(output, labels, heads=nn.ModuleDict(), generator=torch.Generator().manual_seed(seed)), output


@pytest.mark.parametrize("memory", ["region", "pixel", "both"])
def test_contrasts_with_the_bank_as_it_was_before_the_batch(memory: str) -> None:
    term = term_with(memory=memory)
    first, output = step(term, 0)
    assert first.loss.item() == 0  # nothing is stored yet
    first.loss.backward()
    assert torch.equal(output.embeddings[0].grad, torch.zeros_like(output.embeddings[0]))
    assert first.statistics["bank_fill"].item() > 0

    keys, key_labels = term.bank.keys(memory)
    before = keys.clone()
    result, output = step(term, 1)
    output_again, labels = batch(1)
    anchors = sample_anchors(
        F.interpolate(labels[:, None].float(), size=(8, 10), mode="nearest-exact")[:, 0].long(),
        output_again.logits.main.argmax(1),
        max_samples=64,
        max_views=4,
        ignore_index=255,
        generator=torch.Generator().manual_seed(1),
    )
    rows = output.embeddings[0].flatten(2)[anchors.image, :, anchors.pixel]
    expected = info_nce(rows, anchors.label, before, key_labels, temperature=0.1, base_temperature=0.07)
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(result.loss, output.embeddings)[0], torch.autograd.grad(expected, output.embeddings)[0]
    )


def test_stores_what_the_labels_say_at_feature_resolution() -> None:
    term = term_with(pixel_size=200)
    step(term, 0)
    output, labels = batch(0)
    small = F.interpolate(labels[:, None].float(), size=(8, 10), mode="nearest-exact")[:, 0].long()
    keys, key_labels = term.bank.keys("region")
    for label in range(3):
        means = [output.embeddings[0][image][:, small[image] == label].mean(1) for image in range(2)]
        torch.testing.assert_close(keys[key_labels == label], F.normalize(torch.stack(means).detach(), dim=1))


def test_an_ignore_index_below_the_number_of_classes_is_ignored_throughout() -> None:
    config = PixelContrastConfig(max_views=4, memory="both", embedding_dim=8)
    term = PixelContrast(config, num_classes=3, ignore_index=0, training_images=10)
    output, labels = batch(0)
    labels[labels == 255] = 0
    result = term(output, labels, heads=nn.ModuleDict(), generator=torch.Generator())
    assert set(term.bank.keys()[1].tolist()) == {1, 2}
    assert result.statistics["class_share"].item() == 1


def test_semi_hard_takes_the_hardest_and_fewer_keys_make_an_easier_loss() -> None:
    whole, hard = term_with(), term_with(semi_hard=True, positives_per_anchor=3, negatives_per_anchor=4)
    for term in (whole, hard):
        step(term, 0)
    result, output = step(hard, 1)
    assert result.loss.item() > 0
    assert result.loss.item() != step(whole, 1)[0].loss.item()
    (gradient,) = torch.autograd.grad(result.loss, output.embeddings)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_semi_hard_with_room_for_every_key_is_the_whole_bank() -> None:
    whole = term_with()
    step(whole, 0)
    everything = term_with(semi_hard=True, positives_per_anchor=999, negatives_per_anchor=999, hardest=1.0)
    everything.load_state_dict(whole.state_dict())
    torch.testing.assert_close(step(everything, 1)[0].loss, step(whole, 1)[0].loss)


def test_a_resumed_method_goes_on_exactly() -> None:
    straight, saved, resumed = term_with(), term_with(), term_with()
    for term in (straight, saved):
        step(term, 0)
    resumed.load_state_dict(saved.state_dict())
    assert torch.equal(step(straight, 1)[0].loss, step(resumed, 1)[0].loss)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])


@pytest.mark.parametrize(
    ("config", "images", "rows"),
    [
        ({}, 10, (10, 100)),
        ({}, 20000, (5000, 50000)),
        ({"region_size": 7, "pixel_size": 9}, 10, (7, 9)),
        ({"memory": "region"}, 10, (10, 0)),
        ({"memory": "pixel"}, 10, (0, 100)),
        # 3 classes x 2 x 4 bytes are 24 bytes per row: what fits beside the regions, but never fewer than before
        ({"bank_bytes_max": 24 * 73}, 10, (10, 63)),
        ({"bank_bytes_max": 24 * 73, "memory": "pixel"}, 10, (0, 73)),
        ({"bank_bytes_max": 24 * 73, "region_size": 60}, 10, (60, 13)),
        ({"bank_bytes_max": 24 * 20}, 10, (10, 10)),
    ],
)
def test_sizes(config: dict[str, object], images: int, rows: tuple[int, int]) -> None:
    config = {"memory": "both", "embedding_dim": 2, **config}
    term = PixelContrast(PixelContrastConfig(**config), num_classes=3, ignore_index=255, training_images=images)
    assert term.bank.rings.sizes == rows


def test_a_bank_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(UserError, match=r"150 classes x \(5000 region \+ 5000 pixel\).* = 1465 MiB, .* 1024 MiB"):
        PixelContrast(PixelContrastConfig(memory="both"), num_classes=150, ignore_index=255, training_images=20000)


def test_a_default_that_does_not_fit_even_at_its_smallest_is_refused() -> None:
    config = PixelContrastConfig(memory="both", embedding_dim=2, bank_bytes_max=24 * 19)
    with pytest.raises(UserError, match=r"3 classes x \(10 region \+ 10 pixel\) rows x 2 x 4 bytes"):
        PixelContrast(config, num_classes=3, ignore_index=255, training_images=10)


def test_without_memory_there_is_no_state() -> None:
    assert not term_with(memory="none").state_dict()


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="set memory to region, pixel or both"):
        PixelContrastConfig(semi_hard=True)
    with pytest.raises(ValueError, match="region_size: expected at least 1, got 0\nhardest"):
        PixelContrastConfig(memory="both", region_size=0, hardest=2)
