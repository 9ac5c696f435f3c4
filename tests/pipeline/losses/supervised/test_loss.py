"""The supervised loss of a method, and the list of terms in params.yaml that it is built from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.losses.supervised import SUPERVISED
from pipeline.losses.supervised.cross_entropy import CrossEntropyTermConfig, segmentation_loss
from pipeline.losses.supervised.dice import Dice, DiceConfig
from pipeline.losses.supervised.loss import SupervisedEntry, SupervisedLoss, build_entries
from pipeline.losses.supervised.term import LabelledLogits, Supervision
from pipeline.models.network.head import Logits
from serving.contract.schema import Problems

SUPERVISION = Supervision(255, torch.tensor([0.5, 1.0, 2.0]), auxiliary_weight=0.4)


def batch() -> tuple[Logits, Tensor]:
    generator = torch.Generator().manual_seed(0)
    main, auxiliary = (torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True) for _ in range(2))
    return Logits(main, (auxiliary,)), torch.randint(0, 3, (2, 8, 10), generator=generator)


def cross_entropy(logits: Logits, labels: Tensor) -> Tensor:
    return segmentation_loss(
        logits, labels, ignore_index=255, class_weights=SUPERVISION.class_weights, auxiliary_weight=0.4
    )


def test_without_entries_it_is_the_cross_entropy_to_the_bit() -> None:
    logits, labels = batch()
    output = SupervisedLoss((), SUPERVISION)(logits, labels)
    expected = cross_entropy(logits, labels)
    assert torch.equal(output.loss, expected)
    assert list(output.values) == ["cross_entropy", "auxiliary_cross_entropy"]
    main, auxiliary = (output.values[name] for name in ("cross_entropy", "auxiliary_cross_entropy"))
    assert torch.equal(main + 0.4 * auxiliary, expected)
    assert not output.values["cross_entropy"].requires_grad
    for tensor in (logits.main, *logits.auxiliary):
        gradients = [torch.autograd.grad(loss, tensor, retain_graph=True)[0] for loss in (output.loss, expected)]
        assert torch.equal(*gradients)


def test_terms_are_added_with_their_weights_beside_the_cross_entropy() -> None:
    logits, labels = batch()
    output = SupervisedLoss([SupervisedEntry("dice", DiceConfig(weight=0.5))], SUPERVISION)(logits, labels)
    dice = Dice(DiceConfig(), SUPERVISION)(LabelledLogits(logits, labels, 255))
    torch.testing.assert_close(output.loss, cross_entropy(logits, labels) + 0.5 * dice)
    assert list(output.values) == ["cross_entropy", "dice", "auxiliary_cross_entropy"]
    torch.testing.assert_close(output.values["dice"], dice.detach())  # as it is, without its weight


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_an_entry_sets_the_weight_of_the_main_cross_entropy_alone(weight: float) -> None:
    """OHEM in its place must not leave the auxiliary classifiers, and what they teach the backbone, untrained."""
    logits, labels = batch()
    entries = [
        SupervisedEntry("dice", DiceConfig()),
        SupervisedEntry("cross_entropy", CrossEntropyTermConfig(weight=weight)),
    ]
    output = SupervisedLoss(entries, SUPERVISION)(logits, labels)
    dice = Dice(DiceConfig(), SUPERVISION)(LabelledLogits(logits, labels, 255))
    main, auxiliary = (cross_entropy(Logits(each), labels) for each in (logits.main, logits.auxiliary[0]))
    torch.testing.assert_close(output.loss, dice + weight * main + 0.4 * auxiliary)
    torch.testing.assert_close(output.values["cross_entropy"], main.detach())  # in the curves whatever its weight
    torch.testing.assert_close(output.values["auxiliary_cross_entropy"], auxiliary.detach())
    assert torch.autograd.grad(output.loss, logits.auxiliary[0])[0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_it(dtype: torch.dtype) -> None:
    logits, labels = batch()
    half = Logits(logits.main.detach().to(dtype))
    loss = SupervisedLoss([SupervisedEntry("dice", DiceConfig())], Supervision(255))
    with torch.autocast("cpu", dtype=dtype):
        found = loss(half, labels).loss
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(Logits(half.main.double()), labels).loss.item(), rel=1e-5)


def test_entries_are_built_from_yaml() -> None:
    problems = Problems()
    entries = build_entries([{"term": "dice", "weight": 2, "form": "generalised"}], "methods.m.supervised", problems)
    assert not problems
    assert entries == (SupervisedEntry("dice", DiceConfig(weight=2.0, form="generalised")),)


def test_every_problem_of_a_list_is_told_at_once() -> None:
    problems = Problems()
    values = [
        {"term": "dise"},
        {"term": "dice", "wieght": 1},
        {"weight": 1},
        "dice",
        {"term": "dice"},
        {"term": "dice"},
    ]
    build_entries(values, "methods.m.supervised", problems)
    expected = f"expected a mapping with the key 'term' (one of {', '.join(SUPERVISED)})"
    assert problems == [
        "methods.m.supervised[0].term: unknown supervised term 'dise'; did you mean 'dice'?",
        "methods.m.supervised[1].wieght: unknown key; did you mean 'weight'?",
        f"methods.m.supervised[2]: {expected}",
        f"methods.m.supervised[3]: {expected}",
        "methods.m.supervised[5].term: 'dice' is there already; give each term once",
    ]
    problems = Problems()
    build_entries({"term": "dice"}, "methods.m.supervised", problems)
    assert problems == [
        "methods.m.supervised: expected a list of terms such as [{term: dice, weight: 1.0}], got {'term': 'dice'}"
    ]


def test_a_list_that_teaches_nothing_is_refused() -> None:
    problems = Problems()
    build_entries([{"term": "cross_entropy", "weight": 0}], "methods.m.supervised", problems)
    assert problems == [
        "methods.m.supervised: every term has the weight 0: nothing would be learned; give one a weight above 0"
    ]
