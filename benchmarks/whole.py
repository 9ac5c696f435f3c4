"""The negative control of the proof: a trainee shipped whole, its embeddings as further outputs of the graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from export.artifacts.shared.model_file import write_model
from export.graph.deploy import MASK_NAME, DeployGraph
from export.graph.passes import AXES, anonymise, complete_biases, fold_input_scale, run_passes, unshare_weights
from export.graph.tracing import export_program
from pipeline.models.network.segmentor import upsample
from pipeline.models.training_heads.trainee import Trainee
from serving.contract.manifest import Manifest


class WholeGraph(nn.Module):
    """What `DeployGraph` computes, and the embeddings of every tapped layer, as if nothing had been stripped."""

    def __init__(self, trainee: Trainee) -> None:
        super().__init__()
        self.trainee, self.deployed = trainee, DeployGraph(trainee.segmentor)
        self.training = False  # its parts are in evaluation mode; the exporter asks the whole

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 `[B,H,W,3]` -> mask uint8 `[B,H,W]`, then `[B,D,h_i,w_i]` per layer."""
        normalised = (image.to(torch.float32) - self.deployed.mean) / self.deployed.std
        output = self.trainee(normalised.permute(0, 3, 1, 2), embed=True)
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
