"""Untrained trainees of every kind of method, as trainings leave them: what the proof of zero cost strips and ships.

Its negative control ships one whole, its embeddings as further outputs of the graph.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from export.artifacts.shared.model_file import write_model
from export.checks.examination.images import scene
from export.graph.deploy import MASK_NAME, DeployGraph
from export.graph.passes import AXES, anonymise, complete_biases, fold_input_scale, run_passes, unshare_weights
from export.graph.tracing import export_program
from pipeline.data.reading.unlabelled import UnlabelledBatch
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor, upsample
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.averaging import WeightAverage
from pipeline.training.helpers.distillation import Distillation
from pipeline.training.helpers.help import Helpers
from pipeline.training.helpers.mean_teacher import MeanTeacher
from pipeline.training.methods import MethodConfig
from serving.contract.manifest import Manifest

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


class WholeGraph(nn.Module):
    """What `DeployGraph` computes, and the embeddings of every tapped layer, as if nothing had been stripped."""

    def __init__(self, trainee: Trainee) -> None:
        super().__init__()
        self.trainee, self.deployed = trainee, DeployGraph(trainee.segmentor)
        self.training = False  # its parts are in evaluation mode; the exporter asks the whole

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 `[B,H,W,3]` -> mask uint8 `[B,H,W]`, then `[B,D,h_i,w_i]` per layer."""
        normalised = (image.to(torch.float32) - self.deployed.mean) / self.deployed.std
        output = self.trainee(normalised.permute(0, 3, 1, 2), embed=True, everywhere=True)
        logits = upsample(output.logits.main, (image.shape[1], image.shape[2]))
        return (logits.argmax(dim=1).to(torch.uint8), *output.embeddings)


def export_whole(trainee: Trainee, manifest: Manifest, shape: tuple[int, ...], folder: Path) -> Path:
    """Export a trainee with its training heads, for images of one size, through the same passes as what ships.

    Args:
        trainee: in evaluation mode.
        manifest: of the stripped network; its outputs are what the runtime is asked for, the graph has more.
        shape: of the image, `[B,H,W,3]`.
        folder: made here.
    """
    folder.mkdir()
    names = [MASK_NAME, *(f"embeddings_{index}" for index in range(trainee.layers))]
    model = export_program(WholeGraph(trainee), torch.zeros(shape, dtype=torch.uint8), names)
    # Declared as in the graph that ships, so that the comparison meets first what was kept.
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, dim in zip(AXES, value.type.tensor_type.shape.dim, strict=False):
            dim.dim_param = axis
    model = run_passes(model, fold_input_scale, complete_biases, unshare_weights, RemoveUnusedNodesPass())
    anonymise(model)
    return write_model(model, dataclasses.replace(manifest.without_hash(), name="whole"), folder)
