"""The deploy graph in single precision: what every kind of artefact starts from."""

from __future__ import annotations

from onnx import ModelProto
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.graph.deploy import DeployGraph, OutputKind
from export.graph.passes import (
    anonymise,
    complete_biases,
    fold_input_scale,
    keep_pads_before_max_pools,
    name_logits,
    run_passes,
    unshare_weights,
)
from export.graph.tracing import trace
from pipeline.models.network.segmentor import Segmentor
from serving.contract.errors import UserError


def build_model(segmentor: Segmentor, output: OutputKind) -> ModelProto:
    """The ONNX graph that ships, without its manifest.

    Raises:
        UserError: a batch normalisation could not be folded into a convolution.
    """
    model = named_model(segmentor, output)
    anonymise(model)
    return model


def named_model(segmentor: Segmentor, output: OutputKind) -> ModelProto:
    """As `build_model`; its nodes still tell by their metadata which module of the network each comes from."""
    model = run_passes(
        trace(DeployGraph(segmentor, output)),
        fold_input_scale,
        name_logits,
        complete_biases,
        keep_pads_before_max_pools,
        unshare_weights,
        RemoveUnusedNodesPass(),
    )
    unfolded = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if unfolded:
        raise UserError(
            f"{len(unfolded)} batch normalisations remain in the graph, such as {unfolded[0]}: they cost time at every "
            "inference; let each follow its convolution directly, so that it folds into the weights"
        )
    return model
