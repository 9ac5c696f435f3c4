"""The loop and a whole branch: warm-up, fairness between methods, exact resume, honest failure."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from pipeline.losses import LOSSES
from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.term import LossTerm, TermConfig, TermOutput
from pipeline.losses.supervised.dice import DiceConfig
from pipeline.losses.supervised.loss import SupervisedEntry
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import TraineeOutput
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import load_tensors
from pipeline.models.training_heads.trainee import strip
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.checkpoints import load_trainee
from pipeline.training.config import OptimizerConfig, TrainConfig
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError
from tests.pipeline.training.conftest import CONFIG, MODEL

BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())
CONTRAST = MethodConfig("pixel_contrast", PixelContrastConfig(warmup_fraction=0.5, max_views=5, embedding_dim=16))


def test_a_branch_trains_counts_its_contrast_and_comes_back_from_disk(
    run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    result = run("a", CONTRAST)
    assert result.contrast_steps == 2
    assert result.mean_anchors > 0
    assert 0 <= result.miou <= 1
    assert result.best_miou >= result.miou
    trainee, info = load_trainee(tmp_path / "a", "last")
    assert info.class_names == ("floor", "wall", "box")
    assert info.provenance["dataset"] == "folder"
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(strip(trainee, images)(images), trainee(images, embed=False).logits.main)
    curves = tmp_path / "a" / "curves" / "plots" / "metrics"
    lines = (curves / "validation_miou.tsv").read_text().splitlines()
    assert lines[0] == "step\tvalidation_miou"
    assert [line.split("\t")[0] for line in lines[1:]] == ["2", "4"]
    assert (curves / "contrast.tsv").exists()
    assert not list((tmp_path / "a/checkpoints").rglob("*.safetensors")), "a finished training leaves no state"


def test_the_baseline_takes_no_contrast_step(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    result = run("a", BASELINE)
    assert (result.contrast_steps, result.mean_anchors) == (0, 0.0)
    trainee, _ = load_trainee(tmp_path / "a", "last")
    assert sum(parameter.numel() for parameter in trainee.training_heads.parameters()) == 0


class Confidence(LossTerm):
    """A plain loss term, with neither embeddings nor anchors: the mean entropy of the prediction."""

    Config = TermConfig

    def forward(
        self, output: TraineeOutput, labels: Tensor, *, heads: nn.ModuleDict, generator: torch.Generator
    ) -> TermOutput:
        log_probabilities = output.logits.main.log_softmax(dim=1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
        return TermOutput(entropy, {"entropy": entropy.detach()})


def test_a_plain_loss_term_is_called_from_its_start_to_its_end(
    run: Callable[..., TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = types.ModuleType("room_of_confidence")
    room.Confidence = Confidence  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, room.__name__, room)
    monkeypatch.setitem(LOSSES._entries, "confidence", f"{room.__name__}:Confidence")
    calls: list[int] = []
    forward = Confidence.forward

    def counted(self: Confidence, *arguments: Any, **keywords: Any) -> TermOutput:
        calls.append(1)
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(Confidence, "forward", counted)
    run("baseline", BASELINE)
    result = run("always", MethodConfig("confidence", TermConfig()))
    assert len(calls) == 4
    assert (result.contrast_steps, result.mean_anchors) == (4, None)
    names = ("baseline", "always")
    weights = [load_tensors(tmp_path / name / "last.safetensors", made_by="train") for name in names]
    assert weights[0].keys() == weights[1].keys(), "it has no training heads"
    assert not torch.equal(*(tensors["segmentor.head.classifier.weight"] for tensors in weights))
    curves = {path.stem for path in (tmp_path / "always/curves/plots/metrics").iterdir()}
    assert {"cross_entropy", "loss_term", "entropy"} <= curves
    assert "contrast" not in curves
    calls.clear()
    result = run("middle", MethodConfig("confidence", TermConfig(warmup_fraction=0.25, end_fraction=0.75)))
    assert len(calls) == result.contrast_steps == 2


def test_supervised_terms_train_beside_any_loss(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    dice = (SupervisedEntry("dice", DiceConfig(weight=0.5)),)
    run("baseline", BASELINE)
    for name, method in (("dice", BASELINE), ("both", CONTRAST)):
        result = run(name, dataclasses.replace(method, supervised=dice))
        assert result.contrast_steps == (2 if name == "both" else 0)
        assert (tmp_path / name / "curves/plots/metrics/dice.tsv").exists()
        load_trainee(tmp_path / name, "last")
    weights = [
        load_tensors(tmp_path / name / "last.safetensors", made_by="train")["segmentor.head.classifier.weight"]
        for name in ("baseline", "dice", "both")
    ]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    described = [
        json.loads((tmp_path / name / "trainee.json").read_text())["segmentor"]["provenance"]["params_sha256"]
        for name in ("baseline", "dice")
    ]
    assert described[0] != described[1], "what was trained with is part of where the weights come from"


def test_until_the_warmup_ends_nothing_of_the_contrast_is_computed(
    run: Callable[..., TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    iterations: list[int] = []
    forward = PixelContrast.forward

    def counted(self: PixelContrast, *arguments: Any, **keywords: Any) -> Any:
        iterations.append(1)
        return forward(self, *arguments, **keywords)

    monkeypatch.setattr(PixelContrast, "forward", counted)
    run("a", CONTRAST)
    assert len(iterations) == 2


def test_two_methods_with_one_seed_start_alike_and_see_the_same_batches(tiny_prepared: Prepared) -> None:
    starts, batches = [], []
    for config in (BASELINE, CONTRAST):
        term = build_loss_term(config, num_classes=3, ignore_index=255, training_images=8)
        segmentor = build_segmentor(MODEL, 3, seed=7)
        trainee = attach_training_heads(segmentor, term, auxiliary=True, seed=7)
        starts.append(trainee.segmentor.state_dict())
        torch.rand(1 if config is CONTRAST else 2)  # a method that draws more from the global generator changes nothing
        batches.append(
            list(TrainingBatches(tiny_prepared.split("train"), CONFIG.augment, batch_size=2, iterations=3, seed=7))
        )
    assert starts[0].keys() == starts[1].keys()
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    for (images, labels), (other_images, other_labels) in zip(*batches, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


def test_methods_stay_alike_until_the_contrast_starts(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    """Through the real loop: the contrast's extra draws and heads leave the first half of the training untouched."""
    run("baseline", BASELINE)
    run("contrast", CONTRAST)
    losses = [
        (tmp_path / name / "curves/plots/metrics/cross_entropy.tsv").read_text().splitlines()[1]
        for name in ("baseline", "contrast")
    ]
    assert losses[0] == losses[1]


def test_training_is_bit_reproducible(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    run("a", CONTRAST)
    run("b", CONTRAST)
    for name in ("last.safetensors", "best.safetensors", "trainee.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_dropout_is_reproducible_whatever_was_drawn_before(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    model = ModelConfig(backbone="mobilenetv3_small_100", head="fcn", pretrained=False)
    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        run(name, BASELINE, model=model)
    assert (tmp_path / "a" / "last.safetensors").read_bytes() == (tmp_path / "b" / "last.safetensors").read_bytes()


class InterruptedTrainingError(Exception):
    pass


def test_an_interrupted_training_resumes_to_the_same_bytes(
    run: Callable[..., TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("whole", CONTRAST)
    forward = PixelContrast.forward
    calls: list[int] = []

    def failing(self: PixelContrast, *arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedTrainingError
        return forward(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(PixelContrast, "forward", failing)
        with pytest.raises(InterruptedTrainingError):
            run("cut", CONTRAST)
    assert len(list((tmp_path / "cut/checkpoints").rglob("*.safetensors"))) == 1
    assert not (tmp_path / "cut/trainee.json").exists(), "half a training is not taken for a whole one"
    resumed = run("cut", CONTRAST)
    assert (tmp_path / "whole" / "last.safetensors").read_bytes() == (
        tmp_path / "cut" / "last.safetensors"
    ).read_bytes()
    assert (tmp_path / "whole" / "best.safetensors").read_bytes() == (
        tmp_path / "cut" / "best.safetensors"
    ).read_bytes()
    assert (resumed.contrast_steps, resumed.mean_anchors) == (whole.contrast_steps, whole.mean_anchors)
    assert (tmp_path / "cut/curves/plots/metrics/validation_miou.tsv").read_text() == (
        tmp_path / "whole/curves/plots/metrics/validation_miou.tsv"
    ).read_text()


def test_curves_have_a_point_per_epoch_and_none_twice_after_a_resume(
    run: Callable[..., TrainResult], tiny_prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = len(tiny_prepared.split("train")) // 2
    config = dataclasses.replace(CONFIG, iterations=3 * epoch, validate_every=epoch + 1)
    run("whole", CONTRAST, config)
    forward = PixelContrast.forward
    # The contrast's call just after two epochs: in the middle of a validation period.
    last = 2 * epoch + 1 - 3 * epoch // 2

    def failing(self: PixelContrast, *arguments: Any, **keywords: Any) -> Any:
        nonlocal last
        last -= 1
        if last == 0:
            raise InterruptedTrainingError
        return forward(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(PixelContrast, "forward", failing)
        with pytest.raises(InterruptedTrainingError):
            run("cut", CONTRAST, config)
    lost = (tmp_path / "cut/curves/plots/metrics/cross_entropy.tsv").read_text().splitlines()[-1]
    assert lost.startswith(f"{2 * epoch}\t"), "logged after the state that is resumed from"
    run("cut", CONTRAST, config)
    whole, cut = (
        {path.name: path.read_text() for path in (tmp_path / name / "curves/plots/metrics").iterdir()}
        for name in ("whole", "cut")
    )
    assert whole == cut
    steps = [int(line.split("\t")[0]) for line in whole["cross_entropy.tsv"].splitlines()[1:]]
    assert steps == [epoch, epoch + 1, 2 * epoch, 2 * epoch + 2, 3 * epoch]
    validated = [int(line.split("\t")[0]) for line in whole["validation_miou.tsv"].splitlines()[1:]]
    assert validated == [epoch + 1, 2 * epoch + 2, 3 * epoch]


def interrupt(run: Callable[..., TrainResult], name: str, config: TrainConfig = CONFIG) -> None:
    """Train until just after the first validation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelContrast, "forward", lambda *_, **__: (_ for _ in ()).throw(InterruptedTrainingError()))
        with pytest.raises(InterruptedTrainingError):
            run(name, CONTRAST, config)


def test_the_state_of_other_settings_is_not_gone_on_from_but_said(
    run: Callable[..., TrainResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(run, "cut")
    other = MethodConfig("pixel_contrast", PixelContrastConfig(warmup_fraction=0.5, max_views=6, embedding_dim=16))
    run("cut", other)
    shown = capsys.readouterr().err
    assert "holds iteration 2 of a training with other settings, data or code: it is not used" in shown
    assert "goes on" not in shown
    run("whole", other)
    assert (tmp_path / "cut/last.safetensors").read_bytes() == (tmp_path / "whole/last.safetensors").read_bytes()
    run("cut", CONTRAST)
    assert "goes on after iteration 2 of 4" in capsys.readouterr().err, "what was set aside is there for its own"


def test_how_often_a_state_is_kept_is_no_other_setting(
    run: Callable[..., TrainResult], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt(run, "cut")
    run("cut", CONTRAST, dataclasses.replace(CONFIG, checkpoint_every=1, checkpoints_kept=3))
    assert "goes on after iteration 2 of 4" in capsys.readouterr().err


def test_fresh_starts_over(run: Callable[..., TrainResult], capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(run, "cut")
    result = run("cut", CONTRAST, fresh=True)
    assert "goes on" not in capsys.readouterr().err
    assert result.contrast_steps == 2


def test_a_damaged_state_is_set_aside_and_the_one_before_taken(
    run: Callable[..., TrainResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(CONFIG, checkpoint_every=1)
    run("whole", CONTRAST, config)
    interrupt(run, "cut", config)
    _, newest = sorted((tmp_path / "cut/checkpoints").rglob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    run("cut", CONTRAST, config)
    shown = capsys.readouterr().err
    assert f"warning: {newest} is damaged" in shown
    assert "goes on after iteration 1 of 4" in shown
    for name in ("last", "best"):
        path = f"{name}.safetensors"
        assert (tmp_path / "cut" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()


def test_means_and_accumulated_anchors_survive_between_two_reports(
    run: Callable[..., TrainResult], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, iterations=8, validate_every=8, checkpoint_every=3)
    whole = run("whole", CONTRAST, config)
    step, calls = PixelContrast.forward, []

    def failing(self: PixelContrast, *arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:  # iteration 7: after the state of iteration 6, between two reports
            raise InterruptedTrainingError
        return step(self, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelContrast, "forward", failing)
        with pytest.raises(InterruptedTrainingError):
            run("cut", CONTRAST, config)
    resumed = run("cut", CONTRAST, config)
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(whole, seconds=0)
    curves = [
        {path.name: path.read_text() for path in (tmp_path / name / "curves/plots/metrics").iterdir()}
        for name in ("whole", "cut")
    ]
    assert curves[0] == curves[1]


def test_a_loss_that_explodes_is_one_clear_error(run: Callable[..., TrainResult]) -> None:
    config = TrainConfig(
        iterations=4,
        batch_size=2,
        threads=1,
        device="cpu",
        precision="fp32",
        validate_every=4,
        gradient_clip_norm=None,
        optimizer=OptimizerConfig(name="sgd", learning_rate=9.0, momentum=0.99),
        augment=AugmentConfig(crop=(64, 64)),
    )
    poisoned = torch.full((3,), float("nan"))

    def poison(*_: Any) -> Tensor:
        return poisoned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.experiment.class_weights", poison)
        with pytest.raises(UserError, match=r"cross_entropy.* is not finite .*learning_rate"):
            run("a", BASELINE, config)


def test_cuda_without_a_device_is_one_clear_error(run: Callable[..., TrainResult]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="torch sees no CUDA device"):
        run("a", BASELINE, TrainConfig(device="cuda"))


def test_the_best_checkpoint_is_kept_beside_the_last(run: Callable[..., TrainResult], tmp_path: Path) -> None:
    result = run("a", BASELINE)
    best, last = (load_tensors(tmp_path / "a" / f"{name}.safetensors", made_by="train") for name in ("best", "last"))
    same = all(torch.equal(best[name], last[name]) for name in best)
    assert same == (result.best_iteration == 4)
