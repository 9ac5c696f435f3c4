"""Untrained trainees of every kind of method, as trainings leave them: what the proof of zero cost strips and ships."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from export.checks.examination.images import scene
from pipeline.data.reading.unlabelled import UnlabelledBatch
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.averaging import WeightAverage
from pipeline.training.helpers.distillation import Distillation
from pipeline.training.helpers.help import Helpers
from pipeline.training.helpers.mean_teacher import MeanTeacher
from pipeline.training.methods import MethodConfig

NUM_CLASSES = 19
TEACHER = ModelConfig("tf_efficientnet_lite2", False, "light")  # of every method that distils one


def build(model: ModelConfig, method: MethodConfig, images: Tensor, seed: int) -> Trainee:
    """An untrained network with the training heads of a method, in evaluation mode; averaged where the method averages.

    Where a teacher helps, the network takes a step by what that says: whatever a helper leaves in it would be exported.

    Its batch normalisations have seen `images`: with the statistics of no image at all, values might run through a deep
    network to where processors are slow (denormals) or arithmetic ends, and latency would be that of the seed.
    """
    loss = build_loss_term(method, num_classes=NUM_CLASSES, ignore_index=255, training_images=8)
    segmentor = build_segmentor(model, NUM_CLASSES, seed=seed)
    for module in segmentor.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a mean over what was seen
    with torch.no_grad():
        segmentor.train()(segmentor.normalise(images))
    trainee = attach_training_heads(segmentor, loss, auxiliary=True, seed=seed)
    if method.mean_teacher is not None or method.teacher is not None:
        _helped_step(trainee, method, images)
    if method.averaging is not None:
        average = WeightAverage(method.averaging, trainee, iterations=1)
        average.update(trainee, 1)
        trainee = average.apply(trainee, [segmentor.normalise(images)], None)
    return trainee.eval()


def _helped_step(trainee: Trainee, method: MethodConfig, images: Tensor) -> None:
    """One step of gradient descent by the method's helpers, so small that the network stays as good as untrained."""
    shown = images.to(torch.uint8)
    labels = torch.zeros(len(images), *images.shape[2:], dtype=torch.int64)
    helpers = Helpers()
    if method.mean_teacher is not None:
        certain = dataclasses.replace(method.mean_teacher, confidence=0.0)
        helpers.mean_teacher = MeanTeacher(certain, trainee.segmentor)
        inside = torch.ones(labels.shape, dtype=torch.bool)
        helpers.unlabelled = iter([UnlabelledBatch(shown, shown, inside, ~inside)])
    if method.teacher is not None:
        larger = build_segmentor(TEACHER, NUM_CLASSES, seed=0)
        helpers.distillation = Distillation(method.teacher, larger)
    helped = helpers.step(shown, trainee.segmentor.normalise(images), labels, 255)
    loss = helped.loss(trainee.train()(helped.images, embed=False), torch.Generator().manual_seed(0)).loss
    torch.autograd.backward(loss)
    torch.optim.SGD(trainee.parameters(), lr=1e-6).step()
    helpers.update(trainee)
    trainee.zero_grad(set_to_none=True)


def random_images(seed: int) -> Tensor:
    """Two scenes `[2,3,128,128]` float32 in 0..255."""
    generator = np.random.default_rng(seed)
    images = np.stack([scene(128, 128, generator) for _ in range(2)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()
