"""Weight averaging: the averages by hand, batch statistics by hand, and through a whole training with a resume."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Taps
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import Trainee, build_trainee, strip
from pipeline.training import loop
from pipeline.training.averaging import AveragingConfig, WeightAverage, recompute_batch_norm
from pipeline.training.checkpoints import load_trainee
from pipeline.training.config import TrainConfig
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig, build_methods
from serving.contract.schema import Problems

EMA = AveragingConfig(kind="ema", decay=0.6, batch_norm_batches=2)
TAIL = AveragingConfig(kind="tail", tail=0.5, batch_norm_batches=2)
CONTRAST = PixelContrastConfig(warmup_fraction=0.5, max_views=5, embedding_dim=16)


def averaged_method(averaging: AveragingConfig | None) -> MethodConfig:
    return MethodConfig("pixel_contrast", CONTRAST, averaging=averaging)


def trainee_of() -> Trainee:
    segmentor = build_segmentor(ModelConfig(backbone="mobilenetv3_small_100", pretrained=False), 3, seed=0)
    return build_trainee(
        segmentor, taps=Taps.HEAD_INPUT, embedding_dim=4, term_heads=nn.ModuleDict(), auxiliary=False, seed=0
    )


def weights_of(segmentor: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in segmentor.parameters()]


def steps(average: WeightAverage, trainee: Trainee, count: int) -> list[list[Tensor]]:
    """Move the weights `count` times; returns them after each."""
    generator = torch.Generator().manual_seed(0)
    history = []
    for iteration in range(1, count + 1):
        with torch.no_grad():
            for parameter in trainee.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        average.update(trainee, iteration)
        history.append(weights_of(trainee.segmentor))
    return history


def result_of(average: WeightAverage, trainee: Trainee) -> Trainee:
    return average.apply(trainee, [torch.randn(2, 3, 64, 64)], None)


def test_the_moving_average_by_hand() -> None:
    trainee = trainee_of()
    expected = weights_of(trainee.segmentor)
    average = WeightAverage(EMA, trainee, 5)
    for n, weights in enumerate(steps(average, trainee, 5), start=1):
        decay = min(0.6, (1 + n) / (10 + n))
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, weights, strict=True)]
    torch.testing.assert_close(weights_of(result_of(average, trainee).segmentor), expected)


@pytest.mark.parametrize(("tail", "taken"), [(0.4, 2), (1.0, 5), (1e-6, 1)])
def test_the_mean_of_the_last_iterations_by_hand(tail: float, taken: int) -> None:
    trainee = trainee_of()
    average = WeightAverage(AveragingConfig(kind="tail", tail=tail), trainee, 5)
    history = steps(average, trainee, 5)[-taken:]
    expected = [torch.stack(tensors).mean(0) for tensors in zip(*history, strict=True)]
    torch.testing.assert_close(weights_of(result_of(average, trainee).segmentor), expected, rtol=1e-5, atol=1e-5)


def test_before_the_tail_there_is_no_average() -> None:
    trainee = trainee_of()
    average = WeightAverage(TAIL, trainee, 4)
    assert not average.started
    steps(average, trainee, 2)
    assert not average.started
    average.update(trainee, 3)
    assert average.started


def test_training_heads_are_those_of_the_moment_and_the_trainee_is_left_alone() -> None:
    trainee = trainee_of().train()
    average = WeightAverage(EMA, trainee, 5)
    steps(average, trainee, 3)
    before = copy.deepcopy(trainee.state_dict())
    averaged = result_of(average, trainee)
    assert all(torch.equal(value, before[name]) for name, value in trainee.state_dict().items())
    assert trainee.training and not averaged.training
    assert all(
        torch.equal(value, before[f"training_heads.{name}"])
        for name, value in averaged.training_heads.state_dict().items()
    )
    assert not {p.data_ptr() for p in averaged.parameters()} & {p.data_ptr() for p in trainee.parameters()}


def test_batch_statistics_by_hand() -> None:
    """Mean over the batches of each batch's mean and unbiased variance, in evaluation mode elsewhere."""
    network = nn.Sequential(
        nn.Dropout(0.5), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4)
    ).train()
    network(torch.randn(8, 3, 5, 5))
    batches = [torch.randn(2, 3, 5, 5) + shift for shift in range(3)]
    recompute_batch_norm(network, batches, None)
    outputs = [network[1](batch) for batch in batches]
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(network[2].running_mean, mean)
    torch.testing.assert_close(network[2].running_var, variance)
    assert network[2].momentum == 0.1
    assert not any(module.training for module in network.modules())


def test_batch_statistics_of_one_batch_normalise_it() -> None:
    segmentor = build_segmentor(ModelConfig(backbone="mobilenetv3_small_100", pretrained=False), 3, seed=0)
    images = torch.randn(4, 3, 64, 64)
    recompute_batch_norm(segmentor, [images], None)
    seen: list[Tensor] = []
    norm = next(module for module in segmentor.modules() if isinstance(module, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    segmentor(images)
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)))


@pytest.mark.parametrize("averaging", [EMA, TAIL], ids=["ema", "tail"])
def test_what_a_training_ships_is_the_average_of_its_weights(
    averaging: AveragingConfig, run: Callable[..., TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history: list[list[Tensor]] = []
    update = WeightAverage.update

    def recorded(self: WeightAverage, trainee: Trainee, iteration: int) -> None:
        history.append(weights_of(trainee.segmentor))
        update(self, trainee, iteration)

    monkeypatch.setattr(WeightAverage, "update", recorded)
    result = run("averaged", averaged_method(averaging))
    assert len(history) == 4
    trainee, _ = load_trainee(tmp_path / "averaged", "last")
    if averaging is TAIL:
        expected = [torch.stack(tensors).mean(0) for tensors in zip(*history[2:], strict=True)]
        torch.testing.assert_close(weights_of(trainee.segmentor), expected)
    assert all(
        not torch.equal(average, last)
        for average, last in zip(weights_of(trainee.segmentor), history[-1], strict=True)
        if last.numel() > 100
    )
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(strip(trainee, images)(images), trainee(images, embed=False).logits.main)
    assert 0 <= result.miou <= 1
    norms = [name for name in trainee.state_dict() if name.endswith("num_batches_tracked")]
    assert {int(trainee.state_dict()[name]) for name in norms if name.startswith("segmentor")} == {2}


def test_the_training_itself_is_untouched(
    run: Callable[..., TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without an average the same weights are trained; only what is validated and shipped differs."""
    trained: dict[str, dict[str, Tensor]] = {}
    validate = loop.train

    def remembered(trainee: Trainee, *arguments: object, **keywords: object) -> TrainResult:
        result = validate(trainee, *arguments, **keywords)
        trained[str(len(trained))] = {name: value.clone() for name, value in trainee.state_dict().items()}
        return result

    monkeypatch.setattr("pipeline.training.experiment.train", remembered)
    for name, averaging in (("plain", None), ("ema", EMA), ("tail", TAIL)):
        run(name, averaged_method(averaging))
    for other in ("1", "2"):
        assert all(torch.equal(value, trained[other][name]) for name, value in trained["0"].items())


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize("averaging", [EMA, TAIL], ids=["ema", "tail"])
def test_an_interrupted_average_resumes_to_the_same_bytes(
    averaging: AveragingConfig,
    run: Callable[..., TrainResult],
    tiny_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = dataclasses.replace(tiny_config, iterations=5)
    run("whole", averaged_method(averaging), config)
    update = WeightAverage.update

    def failing(self: WeightAverage, trainee: Trainee, iteration: int) -> None:
        if iteration == 4:
            raise InterruptedTrainingError
        update(self, trainee, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(WeightAverage, "update", failing)
        with pytest.raises(InterruptedTrainingError):
            run("cut", averaged_method(averaging), config)
    run("cut", averaged_method(averaging), config)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_a_state_of_another_segmentor_is_refused() -> None:
    trainee = trainee_of()
    average = WeightAverage(EMA, trainee, 5)
    state = average.state_dict()
    average.load_state_dict(state)
    name = next(name for name in state if name != "count")
    for wrong in (
        {**state, name: torch.zeros(1)},
        {k: v for k, v in state.items() if k != name},
        {**state, "x": state[name]},
    ):
        with pytest.raises(RuntimeError, match="not the average of this segmentor"):
            average.load_state_dict(wrong)


def test_settings_come_from_yaml_and_are_checked_all_at_once(tmp_path: Path) -> None:
    problems = Problems()
    methods = build_methods(
        {"a": {"loss": "cross_entropy", "averaging": {"kind": "tail", "tail": 0.1}}, "b": {"loss": "cross_entropy"}},
        100,
        problems,
    )
    assert not problems
    assert methods["a"] == MethodConfig(
        "cross_entropy", CrossEntropy.Config(), averaging=AveragingConfig("tail", tail=0.1)
    )
    assert methods["b"].averaging is None
    wrong = {"decay": 1, "tail": 0, "batch_norm_batches": 0}
    build_methods({"a": {"loss": "cross_entropy", "averaging": wrong}}, 100, problems)
    build_methods({"a": {"loss": "cross_entropy", "averaging": {"kind": "emma", "dekay": 1}}}, 100, problems)
    assert problems == [
        "methods.a.averaging: decay: expected in [0, 1), got 1.0",
        "methods.a.averaging: tail: expected in (0, 1], got 0.0",
        "methods.a.averaging: batch_norm_batches: expected at least 1, got 0",
        "methods.a.averaging.dekay: unknown key; did you mean 'decay'?",
        "methods.a.averaging.kind: expected one of ema, tail, got str 'emma'",
    ]
