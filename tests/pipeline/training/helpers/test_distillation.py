"""Distillation from a stripped checkpoint: which one is accepted, what is compared, and no trace of it afterwards."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.losses.cross_entropy.loss import CrossEntropy
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.losses.shared.resolution import nearest
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Logits, TraineeOutput
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, load_tensors, save_segmentor
from pipeline.models.training_heads.trainee import strip
from pipeline.training.averaging import AveragingConfig
from pipeline.training.checkpoints import load_trainee
from pipeline.training.helpers.config import TeacherConfig
from pipeline.training.helpers.distillation import Distillation, load_teacher
from pipeline.training.loop import TrainResult
from pipeline.training.methods import MethodConfig
from serving.contract.errors import UserError

CLASSES = ("floor", "wall", "box")
MODEL = ModelConfig(pretrained=False)


@pytest.fixture
def teacher(tmp_path: Path) -> TeacherConfig:
    folder = tmp_path / "teacher"
    info = SegmentorInfo(MODEL, 3, CLASSES, ((0, 0, 0), (1, 1, 1), (2, 2, 2)), 255)
    save_segmentor(build_segmentor(MODEL, 3, seed=7), info, folder)
    sha256 = hashlib.sha256((folder / "segmentor.safetensors").read_bytes()).hexdigest()
    return TeacherConfig(str(folder), sha256, max_views=8)


def test_another_file_other_classes_and_no_file_are_refused_in_one_line(teacher: TeacherConfig, tmp_path: Path) -> None:
    assert not load_teacher(teacher, CLASSES).training
    for config, classes, said in (
        (dataclasses.replace(teacher, sha256="0" * 64), CLASSES, f"has the sha256 {teacher.sha256}, expected 0000"),
        (teacher, ("floor", "box", "wall"), "knows the classes floor, wall, box, and the dataset has floor, box, wall"),
        (dataclasses.replace(teacher, path=str(tmp_path / "no")), CLASSES, "cannot be read"),
    ):
        with pytest.raises(UserError, match=said) as refused:
            load_teacher(config, classes)
        assert "\n" not in str(refused.value)
    path = Path(teacher.path) / "segmentor.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="it is another teacher"):
        load_teacher(teacher, CLASSES)
    with pytest.raises(ValueError, match="sha256: expected the 64 digits"):
        TeacherConfig("x", "not trained yet")


def test_a_student_that_is_the_teacher_loses_nothing(teacher: TeacherConfig) -> None:
    network = load_teacher(teacher, CLASSES)
    distillation = Distillation(teacher, network)
    images = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.full((2, 64, 96), 255)
    labels[:, :50, :70] = 1
    view = distillation.view(images, labels, ignore_index=255)
    assert view.size == (64, 96)
    output = TraineeOutput(Logits(view.output.logits.main.clone()), (), view.output.input.clone())
    loss, parts = distillation.loss(output, view, torch.Generator().manual_seed(0))
    assert parts.keys() == {"distillation", "similarity"}
    assert loss.item() == pytest.approx(0, abs=1e-6)
    # What an untrained network says of the classes differs little. How much it loses is known all the same: a
    # divergence lies between half the squared L1 distance (Pinsker) and the chi-squared distance.
    changed = TraineeOutput(Logits(output.logits.main.roll(1, 1)), (), output.head_input)
    lost = distillation.loss(changed, view, torch.Generator().manual_seed(0))[1]["distillation"].item()
    inside = nearest(view.labels, (16, 24)) >= 0
    p, q = (logits.double().softmax(1) for logits in (output.logits.main, changed.logits.main))
    least = ((p - q).abs().sum(1) ** 2 / 2)[inside].mean().item()
    most = ((p - q) ** 2 / q).sum(1)[inside].mean().item()
    assert 10 * abs(loss.item()) < least <= lost <= most


def test_a_branch_is_distilled_and_ships_no_trace_of_the_teacher(
    run: Callable[..., TrainResult], teacher: TeacherConfig, tmp_path: Path
) -> None:
    run("distilled", MethodConfig("cross_entropy", CrossEntropy.Config(), teacher=teacher))
    curves = {path.stem for path in (tmp_path / "distilled/curves/plots/metrics").iterdir()}
    assert {"distillation", "similarity"} <= curves and "pseudo_label" not in curves
    trainee, info = load_trainee(tmp_path / "distilled", "last")
    images = torch.rand(1, 3, 64, 64)
    stripped = strip(trainee, images)
    assert torch.equal(stripped(images), trainee(images, embed=False).logits.main)
    plain = build_segmentor(MODEL, info.num_classes, seed=0)
    there = {name: (tensor.shape, tensor.dtype) for name, tensor in stripped.state_dict().items()}
    assert there == {name: (tensor.shape, tensor.dtype) for name, tensor in plain.state_dict().items()}


@pytest.mark.slow
def test_the_teacher_decides_the_weights_and_where_it_lies_does_not(
    run: Callable[..., TrainResult], teacher: TeacherConfig, tmp_path: Path
) -> None:
    contrast = PixelContrastConfig(warmup_fraction=0.5, max_views=5, embedding_dim=16)
    run("baseline", MethodConfig("cross_entropy", CrossEntropy.Config()))
    run("distilled", MethodConfig("cross_entropy", CrossEntropy.Config(), teacher=teacher))
    run("contrast", MethodConfig("pixel_contrast", contrast, teacher=teacher))
    averaged = AveragingConfig(kind="ema", decay=0.9, batch_norm_batches=2)
    run("averaged", MethodConfig("cross_entropy", CrossEntropy.Config(), averaging=averaged, teacher=teacher))
    names = ("baseline", "distilled")
    tensors = {name: load_tensors(tmp_path / name / "last.safetensors", made_by="train") for name in names}
    assert tensors["baseline"].keys() == tensors["distilled"].keys()
    name = "segmentor.head.classifier.weight"
    assert not torch.equal(tensors["baseline"][name], tensors["distilled"][name])
    images = torch.rand(1, 3, 64, 64)
    for each in ("contrast", "averaged"):
        trainee, _ = load_trainee(tmp_path / each, "last")
        assert torch.equal(strip(trainee, images)(images), trainee(images, embed=False).logits.main)
    again = dataclasses.replace(teacher, path=str(Path(teacher.path).rename(tmp_path / "moved")))
    run("again", MethodConfig("cross_entropy", CrossEntropy.Config(), teacher=again))
    for file in ("last.safetensors", "trainee.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "distilled" / file).read_bytes()
