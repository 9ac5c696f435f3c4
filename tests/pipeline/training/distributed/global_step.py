"""Whole steps of a training of every method, by one process or by ranks with their parts of the batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from pipeline.data.reading.unlabelled import UnlabelledBatch
from pipeline.losses.shared.distributed import own_part
from pipeline.losses.shared.term import ContrastConfig
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig, TrainConfig
from pipeline.training.distributed.batch_norm import synchronise_batch_norm
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.helpers.config import MeanTeacherConfig, TeacherConfig
from pipeline.training.helpers.distillation import Distillation
from pipeline.training.helpers.help import Helpers
from pipeline.training.helpers.mean_teacher import MeanTeacher
from pipeline.training.methods import MethodConfig, build_methods
from pipeline.training.optimisation import build_optimizer
from pipeline.training.state import TrainingState
from pipeline.training.step import Batch, Objective, TrainingStep
from serving.contract.schema import Problems
from tests.pipeline.training.conftest import CONFIG, MODEL

CLASSES, IGNORED, IMAGES = 3, 255, 4
CPU = torch.device("cpu")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
SMALL = {"embedding_dim": 16, "max_views": 6, "max_samples": 60, "positives_per_class": 20}
SGD = dataclasses.replace(CONFIG, optimizer=OptimizerConfig("sgd", 0.05), gradient_clip_norm=5.0)


def methods() -> dict[str, MethodConfig]:
    """Every method of params.yaml, small, and pixel contrast with the other kinds of bank; on from the first step."""
    values: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text())["methods"]
    for memory in ("region", "pixel"):
        values[f"pixel_contrast_{memory}"] = {"loss": "pixel_contrast", "memory": memory}
    problems = Problems()
    built = build_methods(values, None, problems)
    assert not problems
    for name, method in built.items():
        if isinstance(method.settings, ContrastConfig):
            known = {field.name for field in dataclasses.fields(method.settings)}
            small: dict[str, Any] = {key: value for key, value in SMALL.items() if key in known}
            settings = dataclasses.replace(method.settings, warmup_fraction=0.0, weight=1.0, **small)
            built[name] = dataclasses.replace(method, settings=settings)
    return built


def own_batch(seed: int, unlabelled: slice) -> Batch:
    """This process's part of a batch of coarse blocks, of which a slice of the images has no label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (IMAGES, 4, 4), generator=generator)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    noise = torch.randint(0, 60, (IMAGES, 3, 64, 64), generator=generator)
    images = (noise + 60 * labels[:, None]).to(torch.uint8)
    labels[:, :3] = IGNORED
    labels[unlabelled] = IGNORED
    return own_part(images), own_part(labels)


def taught_by_the_mean(trainee: Trainee) -> Helpers:
    """A mean teacher that believes every pixel; in boxes the student sees the next image, of the other rank as well."""
    boxes = torch.zeros(IMAGES, 64, 64, dtype=torch.bool)
    for image in range(IMAGES):
        boxes[image, 8 : 24 + 8 * image, 16:48] = True
    batches = []
    for number in range(2):
        weak, outlines = own_batch(100 + number, slice(0))
        strong = (weak.float() * 0.7).to(torch.uint8)
        batches.append(UnlabelledBatch(weak, strong, outlines != IGNORED, own_part(boxes)))
    config = MeanTeacherConfig(confidence=0.0, contrast=False)
    return Helpers(mean_teacher=MeanTeacher(config, trainee.segmentor), unlabelled=iter(batches))


def taught_by_another(trainee: Trainee) -> Helpers:
    """Distillation from a network that has other weights."""
    teacher = build_segmentor(MODEL, CLASSES, seed=1).to(trainee.segmentor.mean.dtype)
    teacher.to(memory_format=torch.channels_last)
    return Helpers(distillation=Distillation(TeacherConfig("", "0" * 64, max_samples=60, max_views=6), teacher))


def steps(
    method: MethodConfig,
    config: TrainConfig,
    dtype: torch.dtype,
    *,
    unlabelled: slice = slice(0),
    parts: int = 1,
    helpers: Callable[[Trainee], Helpers] | None = None,
) -> dict[str, Tensor]:
    """Two steps: losses and statistics, gradients of both, and every state after them."""
    term = build_loss_term(method, num_classes=CLASSES, ignore_index=IGNORED, training_images=8).to(dtype)
    trainee = attach_training_heads(build_segmentor(MODEL, CLASSES, seed=0), term, auxiliary=True, seed=0).to(dtype)
    trainee.to(memory_format=torch.channels_last)
    synchronise_batch_norm(trainee, CPU)
    state = TrainingState(build_optimizer(trainee, config.optimizer))
    supervised = SupervisedLoss(method.supervised, Supervision(IGNORED, None, auxiliary_weight=0.4))
    step = TrainingStep(
        trainee.train(),
        Objective(method, term, supervised, None if helpers is None else helpers(trainee)),
        config,
        seed=0,
        device=CPU,
        watch=FiniteWatch(CPU, deferred=False),
        mark=lambda _: None,
    )
    result: dict[str, Tensor] = {}
    for number in range(2):
        assert step([own_batch(10 * number + part, unlabelled) for part in range(parts)], state)
        for name, parameter in trainee.named_parameters():
            if parameter.grad is not None:
                result[f"gradient of {name}, step {number}"] = parameter.grad.clone()
    sampled = ("alignment", "uniformity")  # of a coarse layer each rank shows another selection of its rows
    result |= {f"sum of {name}": value for name, value in state.means.sums.items() if name not in sampled}
    result |= {f"trainee's {name}": value for name, value in trainee.state_dict().items()}
    return result | {f"term's {name}": value for name, value in term.state_dict().items()}


def compute() -> dict[str, dict[str, Tensor]]:
    """Every case, of this process's part of the batches."""
    results = {}
    for name, dtype in DTYPES.items():
        for method, settings in methods().items():
            results[f"{name}, {method}"] = steps(settings, SGD, dtype)
        contrast = methods()["pixel_contrast_bank"]
        results[f"{name}, accumulated"] = steps(contrast, SGD, dtype, parts=2)
        results[f"{name}, no anchor on the first rank"] = steps(contrast, SGD, dtype, unlabelled=slice(2))
        among = methods()["pixel_contrast"]
        results[f"{name}, no anchor on the second rank"] = steps(among, SGD, dtype, unlabelled=slice(2, 4))
        late = dataclasses.replace(contrast, settings=dataclasses.replace(contrast.settings, warmup_fraction=0.25))
        results[f"{name}, from the second step on"] = steps(late, SGD, dtype)
        for helpers in (taught_by_the_mean, taught_by_another):
            results[f"{name}, {helpers.__name__}"] = steps(methods()["cross_entropy"], SGD, dtype, helpers=helpers)
    return results
