"""A mean teacher on unlabelled images: the average, the views, whole trainings, and no trace of it afterwards."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.unlabelled import StrongView, UnlabelledBatches
from pipeline.evaluation.config import EvaluateConfig
from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.resolution import NO_CLASS
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import load_tensors
from pipeline.models.training_heads.trainee import strip
from pipeline.training.averaging import AveragingConfig
from pipeline.training.checkpoints import load_trainee
from pipeline.training.config import TrainConfig
from pipeline.training.experiment import TrainingFiles, TrainingSetup, train_branch
from pipeline.training.helpers.config import MeanTeacherConfig
from pipeline.training.helpers.mean_teacher import MeanTeacher
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig, build_methods
from serving.contract.errors import UserError
from serving.contract.schema import Problems

MODEL = ModelConfig(pretrained=False)
CERTAIN = MeanTeacherConfig(confidence=0.0, unlabelled_batch_size=3)  # every pixel is believed
BASELINE = MethodConfig("cross_entropy", CrossEntropy.Config())
TAUGHT = MethodConfig("cross_entropy", CrossEntropy.Config(), mean_teacher=CERTAIN)
CONTRAST = PixelContrastConfig(warmup_fraction=0.0, max_views=5, embedding_dim=16, memory="both")


@pytest.fixture
def with_unlabelled(tiny_prepared: Prepared) -> Prepared:
    train = tiny_prepared.split("train")
    entries = tuple(entry.without_label() for entry in train.entries)
    return dataclasses.replace(tiny_prepared, unlabelled=dataclasses.replace(train, entries=entries))


@pytest.fixture
def trained(with_unlabelled: Prepared, tmp_path: Path, tiny_config: TrainConfig) -> Callable[..., TrainResult]:
    def run(
        name: str, method: MethodConfig, prepared: Prepared = with_unlabelled, config: TrainConfig = tiny_config
    ) -> TrainResult:
        folder = tmp_path / name
        setup = TrainingSetup("method", 0, method, MODEL, config, EvaluateConfig())
        return train_branch(setup, prepared, TrainingFiles(folder, folder / "curves", folder / "checkpoints"))

    return run


def test_the_workers_of_unlabelled_images_end_with_the_training(
    trained: Callable[..., TrainResult], tiny_config: TrainConfig
) -> None:
    """They ignore signals, so that a process that ends would wait for them for ever."""
    trained("taught", TAUGHT, config=dataclasses.replace(tiny_config, workers=1))
    assert not multiprocessing.active_children()


def test_the_teacher_is_the_average_of_the_student_statistics_included() -> None:
    student = build_segmentor(MODEL, 3, seed=0)
    teacher = MeanTeacher(MeanTeacherConfig(decay=0.5), student)
    names = [name for name, value in student.state_dict().items() if value.is_floating_point()]
    expected = {name: student.state_dict()[name].double() for name in names}
    for number in range(1, 8):
        with torch.no_grad():
            for parameter in (*student.parameters(), *student.buffers()):
                if parameter.is_floating_point():
                    parameter.add_(torch.full_like(parameter, 0.1 * number))
        teacher.update(student)
        decay = min(0.5, (1 + number) / (10 + number))
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * student.state_dict()[name].double()
    for name in names:
        torch.testing.assert_close(teacher.segmentor.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-5)
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_student_sees_the_strong_view_with_the_classes_of_the_weak_one(with_unlabelled: Prepared) -> None:
    assert with_unlabelled.unlabelled is not None
    config = TrainConfig().augment
    batches = UnlabelledBatches(
        with_unlabelled.unlabelled,
        dataclasses.replace(config, crop=(50, 70)),  # no multiples of the stride
        StrongView(0.5, 1.0),
        batch_size=3,
        iterations=1,
        seed=0,
    )
    (batch,) = batches
    student = build_segmentor(MODEL, 3, seed=0)
    view = MeanTeacher(CERTAIN, student).view(batch, ignore_index=255)
    assert view.images.shape == (3, 3, 64, 96) and view.target.classes.shape == (3, 64, 96)
    assert not view.target.inside[:, 50:].any() and not view.target.inside[:, :, 70:].any()
    assert torch.equal(view.target.classes != NO_CLASS, view.target.inside), "what is inside is believed, no more"
    mixed = torch.where(batch.boxes[:, None], batch.strong.roll(-1, 0), batch.strong)
    torch.testing.assert_close(view.images[:, :, :50, :70], student.normalise(mixed))
    nothing = MeanTeacher(dataclasses.replace(CERTAIN, confidence=1.0), student).view(batch, ignore_index=255)
    assert (nothing.target.classes == NO_CLASS).all()


def test_a_branch_learns_from_unlabelled_images_and_ships_no_trace_of_the_teacher(
    trained: Callable[..., TrainResult], tmp_path: Path
) -> None:
    trained("baseline", BASELINE)
    trained("taught", TAUGHT)
    tensors = {
        name: load_tensors(tmp_path / name / "last.safetensors", made_by="train") for name in ("baseline", "taught")
    }
    assert tensors["baseline"].keys() == tensors["taught"].keys()
    name = "segmentor.head.classifier.weight"
    assert not torch.equal(tensors["baseline"][name], tensors["taught"][name])
    curves = {path.stem for path in (tmp_path / "taught/curves/plots/metrics").iterdir()}
    assert {"pseudo_label", "confident_share", "cross_entropy"} <= curves
    assert {path.stem for path in (tmp_path / "baseline/curves/plots/metrics").iterdir()} == curves - {
        "pseudo_label",
        "confident_share",
    }
    trainee, info = load_trainee(tmp_path / "taught", "last")
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(strip(trainee, images)(images), trainee(images, embed=False).logits.main)
    baseline, plain = load_trainee(tmp_path / "baseline", "last")
    assert [*strip(trainee, images).state_dict()] == [*strip(baseline, images).state_dict()]
    assert info.provenance["params_sha256"] != plain.provenance["params_sha256"]


def test_nothing_confident_adds_an_exact_zero(trained: Callable[..., TrainResult], tmp_path: Path) -> None:
    trained("unsure", dataclasses.replace(TAUGHT, mean_teacher=dataclasses.replace(CERTAIN, confidence=1.0)))
    for curve in ("pseudo_label", "confident_share"):
        lines = (tmp_path / f"unsure/curves/plots/metrics/{curve}.tsv").read_text().splitlines()[1:]
        assert lines and all(float(line.split("\t")[1]) == 0 for line in lines)


def test_the_contrast_sees_confident_unlabelled_pixels_where_asked_to(
    trained: Callable[..., TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bool]] = []
    forward = PixelContrast.forward

    def watched(self: PixelContrast, output: Any, labels: Any, **keywords: Any) -> Any:
        unlabelled = labels[2:]
        seen.append((len(labels), int((unlabelled != 255).sum()), "unreliable" in keywords))
        assert output.embeddings[0].shape[0] == len(output.logits.main) == len(labels)
        return forward(self, output, labels, **keywords)

    monkeypatch.setattr(PixelContrast, "forward", watched)
    for settings, expected in (
        ({}, (5, True, False)),
        ({"contrast": False}, (2, False, False)),
        ({"confidence": 1.0, "unreliable_negatives": 20, "unlikely_rank": 1}, (5, False, True)),
    ):
        seen.clear()
        taught = dataclasses.replace(CERTAIN, **settings)
        trained(str(len(settings)) + str(expected[0]), MethodConfig("pixel_contrast", CONTRAST, mean_teacher=taught))
        assert [(rows, pixels > 0, unreliable) for rows, pixels, unreliable in seen] == [expected] * 4


class InterruptedTrainingError(Exception):
    """What the test stops the training with."""


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    trained: Callable[..., TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = MethodConfig("pixel_contrast", CONTRAST, mean_teacher=CERTAIN)
    trained("whole", method)
    update, calls = MeanTeacher.update, []

    def failing(self: MeanTeacher, student: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise InterruptedTrainingError
        update(self, student)

    with monkeypatch.context() as patch:
        patch.setattr(MeanTeacher, "update", failing)
        with pytest.raises(InterruptedTrainingError):
            trained("cut", method)
    trained("cut", method)
    whole, cut = (tmp_path / name / "last.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_without_unlabelled_images_it_is_refused_in_one_line(
    trained: Callable[..., TrainResult], tiny_prepared: Prepared
) -> None:
    with pytest.raises(UserError, match="lists no unlabelled image; put some into images/unlabelled") as refused:
        trained("none", TAUGHT, tiny_prepared)
    assert "\n" not in str(refused.value)


def test_unreliable_negatives_that_could_be_of_no_class_are_refused(trained: Callable[..., TrainResult]) -> None:
    taught = dataclasses.replace(CERTAIN, unreliable_negatives=9)  # the data has three classes
    with pytest.raises(UserError, match=r"methods.method.mean_teacher.unlikely_rank: 3, but the data has 3 classes"):
        trained("none", MethodConfig("pixel_contrast", CONTRAST, mean_teacher=taught))


def test_averages_need_no_second_labelled_image(
    trained: Callable[..., TrainResult], tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step sees unlabelled crops beside the one; on the one alone the statistics of pooled features are undefined."""
    monkeypatch.setattr(f"{__name__}.MODEL", ModelConfig(pretrained=False, head="deeplabv3"))
    method = dataclasses.replace(TAUGHT, averaging=AveragingConfig("ema"))
    trained("one", method, config=dataclasses.replace(tiny_config, batch_size=1, iterations=1))


def test_settings_are_checked_all_at_once() -> None:
    problems = Problems()
    values = {
        "a": {"loss": "cross_entropy", "mean_teacher": {"confidence": 1.5, "decay": 1.0, "weight": 0}},
        "b": {"loss": "contextrast", "mean_teacher": {"unreliable_negatives": 9}},
        "c": {"loss": "pixel_contrast", "mean_teacher": {"confidense": 0.5}},
        "d": {
            "loss": "pixel_contrast",
            "memory": "both",
            "semi_hard": True,
            "mean_teacher": {"unreliable_negatives": 9},
        },
        "e": {"loss": "pixel_contrast", "mean_teacher": {"unreliable_negatives": 9, "contrast": False}},
    }
    build_methods(values, 100, problems)
    said = "\n".join(map(str, problems))
    for line in (
        "confidence: expected in [0, 1], got 1.5",
        "decay: expected in [0, 1), got 1.0",
        "weight: expected above 0, got 0",
        "unreliable_negatives: the loss 'contextrast' takes none; set it to 0",
        "confidense",
        "unreliable_negatives: does not go with semi_hard",
        "the contrast has to see the unlabelled pixels",
    ):
        assert line in said
    problems = Problems()
    methods = build_methods({"good": {"loss": "pixel_contrast", "mean_teacher": {}}}, 100, problems)
    assert not problems and methods["good"].mean_teacher == MeanTeacherConfig()
