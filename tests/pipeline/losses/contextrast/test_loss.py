"""Contextrast against its equations, and each of its rules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.losses.contextrast.loss import Contextrast, ContextrastConfig
from pipeline.losses.shared.class_products import EmbeddingMap
from pipeline.losses.shared.pixel_anchor import Layer, class_anchors, sample_per_group
from pipeline.losses.shared.resolution import NO_CLASS, majority, nearest
from pipeline.losses.shared.term import TermOutput
from pipeline.models.network.head import Logits, Taps, TraineeOutput
from serving.contract.errors import UserError

SIZES = ((8, 12), (4, 6), (2, 3))  # of a 16 x 24 image
WEIGHTS = (1.0, 0.7, 0.4)  # deep to shallow


def blocks(images: int, classes: int, generator: torch.Generator, cell: int = 4) -> Tensor:
    coarse = torch.randint(0, classes, (images, 16 // cell, 24 // cell), generator=generator)
    return coarse.repeat_interleave(cell, 1).repeat_interleave(cell, 2)


def batch(images: int = 2, classes: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64, ignored: float = 0.1):
    generator = torch.Generator().manual_seed(seed)
    embeddings = tuple(
        F.normalize(torch.randn(images, 6, *size, generator=generator, dtype=dtype), dim=1).requires_grad_()
        for size in SIZES
    )
    labels = blocks(images, classes, generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    logits = F.one_hot(blocks(images, classes, generator)[:, ::2, ::2], classes).permute(0, 3, 1, 2).to(dtype)
    return TraineeOutput(Logits(logits), embeddings), labels


def run(output: TraineeOutput, labels: Tensor, classes: int = 3, seed: int = 0, **config: object) -> TermOutput:
    config = {"layer_weights": WEIGHTS, "positives_per_class": 10**6, **config}
    term = Contextrast(ContextrastConfig(**config), num_classes=classes, ignore_index=255, training_images=4)
    heads = term.build_heads(len(output.embeddings))
    return term(output, labels, heads=heads, generator=torch.Generator().manual_seed(seed))


def at_layers(classes: Tensor) -> list[Tensor]:
    return [F.interpolate(classes[:, None].double(), size=s, mode="nearest-exact")[:, 0].long() for s in SIZES]


@settings(deadline=None, max_examples=25)
@given(
    images=st.integers(1, 2),
    classes=st.integers(1, 4),
    local_weight=st.sampled_from([0.0, 0.5, 1.0]),
    fraction=st.sampled_from([0.0, 0.5, 1.0]),
    negatives=st.sampled_from(["others", "predicted"]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_equations(
    images, classes, local_weight, fraction, negatives, ignored, seed, reference_pixel_anchor_loss
) -> None:
    output, labels = batch(images, classes, seed, ignored=ignored)
    settings_ = {"local_weight": local_weight, "boundary_fraction": fraction, "negatives": negatives}
    result = run(output, labels, classes, **settings_).loss
    expected = reference_pixel_anchor_loss(
        list(output.embeddings),
        at_layers(labels),
        at_layers(output.logits.main.argmax(1)),
        num_classes=classes,
        ignore_index=255,
        temperature=0.1,
        layer_weights=list(WEIGHTS[::-1]),
        **settings_,
    )
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)
    got = torch.autograd.grad(result, output.embeddings)
    for gradient, wanted in zip(got, torch.autograd.grad(expected, output.embeddings), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("purity", [None, 0.0, 0.5, 0.8, 1.0])
def test_labels_of_coarse_cells_are_those_of_a_pure_majority(purity, reference_pixel_anchor_loss) -> None:
    """Strides 4, 16 and 32: the finest layer keeps the class at the cell's centre."""
    sizes = ((16, 24), (4, 6), (2, 3))
    generator = torch.Generator().manual_seed(0)
    embeddings = tuple(
        F.normalize(torch.randn(2, 6, *size, generator=generator, dtype=torch.float64), dim=1).requires_grad_()
        for size in sizes
    )
    labels, predictions = (
        torch.randint(0, 3, (2, 8, 12), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
        for _ in range(2)
    )
    labels[:, 32:] = 1  # pure cells
    labels[torch.rand(labels.shape, generator=generator) < 0.05] = 255
    output = TraineeOutput(Logits(F.one_hot(predictions, 3).permute(0, 3, 1, 2).double()), embeddings)
    result = run(output, labels, purity=purity)
    known = labels.where(labels != 255, NO_CLASS)

    def reduced(classes: Tensor, share: float | None) -> list[Tensor]:
        coarse = [
            nearest(classes, size) if share is None else majority(classes, size, num_classes=3, purity=share)
            for size in sizes[1:]
        ]
        return [nearest(classes, sizes[0]), *coarse]

    expected = reference_pixel_anchor_loss(
        list(embeddings),
        reduced(known, purity),
        reduced(predictions, None if purity is None else 0.0),
        num_classes=3,
        ignore_index=NO_CLASS,
        temperature=0.1,
        layer_weights=list(WEIGHTS[::-1]),
        local_weight=0.5,
        boundary_fraction=0.5,
        negatives="others",
    )
    torch.testing.assert_close(result.loss, expected, rtol=1e-9, atol=1e-12)
    got = torch.autograd.grad(result.loss, embeddings)
    for gradient, wanted in zip(got, torch.autograd.grad(expected, embeddings), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-8, atol=1e-12)


def test_fine_strides_do_not_ask_for_purity() -> None:
    output, labels = batch()
    assert torch.equal(run(output, labels).loss, run(output, labels, purity=1.0).loss)


def test_layout_does_not_matter() -> None:
    output, labels = batch()
    again = TraineeOutput(
        output.logits,
        tuple(e.detach().to(memory_format=torch.channels_last).requires_grad_() for e in output.embeddings),
    )
    losses = [run(o, labels).loss for o in (output, again)]
    torch.testing.assert_close(losses[0], losses[1])
    gradients = [torch.autograd.grad(loss, o.embeddings) for loss, o in zip(losses, (output, again), strict=True)]
    for plain, last in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, last)
        assert last.is_contiguous(memory_format=torch.channels_last)


def test_anchors_are_means_over_the_mini_batch() -> None:
    output, labels = batch()
    small = at_layers(labels)[0]
    anchors = class_anchors(Layer(EmbeddingMap(output.embeddings[0]), small, small), 4)
    assert anchors.present.tolist() == [True, True, True, False]
    pixels = output.embeddings[0].permute(0, 2, 3, 1)
    for label in range(3):
        torch.testing.assert_close(anchors.means[label], pixels[small == label].mean(0))
    assert anchors.means[3].eq(0).all()


def test_positives_are_capped_per_class_and_layer_and_drawn_from_the_generator() -> None:
    output, labels = batch()
    assert run(output, labels, positives_per_class=5).loss != run(output, labels, positives_per_class=5, seed=1).loss
    assert run(output, labels, positives_per_class=5).loss == run(output, labels, positives_per_class=5).loss
    group = torch.tensor([0, 3, 3, -1, 0, 3, 3, 7, -1] * 50)
    generator = torch.Generator().manual_seed(0)
    chosen = sample_per_group(group, 60, torch.randint(2**30, group.shape, generator=generator))
    assert torch.bincount(group[chosen], minlength=8).tolist() == [60, 0, 0, 60, 0, 0, 0, 50]
    counts = torch.zeros(len(group))
    for _ in range(400):
        counts += sample_per_group(group, 50, torch.randint(2**30, group.shape, generator=generator))
    assert (counts[group == 0] - 200).abs().max() < 5 * 10  # probability 1/2, deviation 10
    assert (counts[group == 3] - 100).abs().max() < 5 * 8.7  # probability 1/4


def test_both_roles_of_the_boundary_negatives() -> None:
    """Class 1 is taken for class 2 everywhere: under `predicted` that concerns the anchor of class 2 alone."""
    labels = torch.zeros(1, 16, 24, dtype=torch.int64)
    labels[:, :, 8:16], labels[:, :, 16:] = 1, 2
    predictions = labels.where(labels != 1, 2)
    output, _ = batch(1)
    logits = F.one_hot(predictions, 3).permute(0, 3, 1, 2).double()
    output = TraineeOutput(Logits(logits), output.embeddings)
    others, predicted = (run(output, labels, negatives=role).statistics for role in ("others", "predicted"))
    assert others["anchors"] == predicted["anchors"] == 9
    assert others["boundary_pixels"] == predicted["boundary_pixels"] > 0
    assert others["filled_share"].item() == pytest.approx(1 / 3)  # class 1 has no error against it
    assert predicted["filled_share"].item() == pytest.approx(2 / 3)


def test_a_perfect_prediction_falls_back_on_random_pixels() -> None:
    output, labels = batch(ignored=0)
    perfect = TraineeOutput(Logits(F.one_hot(labels, 3).permute(0, 3, 1, 2).double()), output.embeddings)
    result = run(perfect, labels, positives_per_class=3)
    assert result.statistics["boundary_pixels"].item() == 0
    assert result.statistics["filled_share"].item() == 1
    assert result.loss.item() > 0


def test_statistics() -> None:
    output, labels = batch()
    statistics = run(output, labels).statistics
    assert set(statistics) == {
        "anchors", "class_share", "boundary_pixels", "filled_share", "alignment", "uniformity"
    }  # fmt: skip
    for value in statistics.values():
        assert value.shape == ()
        assert not value.requires_grad
    rare = torch.zeros_like(labels)
    rare[:, :2, :2] = 1  # one pixel of the shallowest layer, none of the others
    assert run(output, rare).statistics["class_share"].item() == pytest.approx(4 / 6)


def test_gradients_reach_every_stage_and_projection() -> None:
    stages = nn.ModuleList(nn.Conv2d(3, 6, 1) for _ in SIZES).double()
    images = [torch.randn(2, 3, *size, dtype=torch.float64) for size in SIZES]
    embeddings = tuple(F.normalize(stage(image), dim=1) for stage, image in zip(stages, images, strict=True))
    output, labels = batch()
    run(TraineeOutput(output.logits, embeddings), labels).loss.backward()
    assert all(stage.weight.grad.abs().sum() > 0 for stage in stages)


def test_settings() -> None:
    assert Contextrast.taps is Taps.STAGES
    assert ContextrastConfig().weight == 0.1
    assert ContextrastConfig().layer_weights == (1.0, 0.7, 0.4, 0.1)
    with pytest.raises(ValueError, match=r"temperature.*\nlayer_.*\nlocal_weight.*\nboundary_fraction.*\npurity"):
        ContextrastConfig(temperature=0, layer_weights=(0.0,), local_weight=2, boundary_fraction=-1, purity=2)
    term = Contextrast(ContextrastConfig(), num_classes=3, ignore_index=255, training_images=4)
    with pytest.raises(UserError, match="each of the network's 5 stages"):
        term.build_heads(5)
    assert not term.state_dict()
