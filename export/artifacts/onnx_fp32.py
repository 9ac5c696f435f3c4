"""Artefact kind `onnx_fp32`: the deploy graph in single precision."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from export.artifacts.interface import ExportContext, describe
from export.artifacts.passes import (
    anonymise,
    complete_biases,
    fold_input_scale,
    name_logits,
    prune,
    unshare_weights,
)
from export.artifacts.saving import save
from export.artifacts.tracing import OPSET, trace
from export.graph import LOGITS_NAME, DeployGraph, OutputKind
from export.structure import structure_sha256
from pipeline.config.artifacts import OnnxFp32Options
from pipeline.models.segmentor import Segmentor
from serving.errors import UserError


def export(segmentor: Segmentor, context: ExportContext, options: OnnxFp32Options) -> Path:
    """See `Exporter`."""
    model = build_model(segmentor, options.output)
    manifest = describe(
        context,
        segmentor,
        kind="onnx",
        precision="fp32",
        output=options.output,
        details={"opset": OPSET, "logits": LOGITS_NAME, "structure_sha256": structure_sha256(model)},
    )
    return save(model, manifest, context.folder)


def build_model(segmentor: Segmentor, output: OutputKind) -> ModelProto:
    """The ONNX graph that ships, without its manifest.

    Raises:
        UserError: a batch normalisation could not be folded into a convolution.
    """
    model = trace(DeployGraph(segmentor, output))
    fold_input_scale(model)
    name_logits(model)
    complete_biases(model)
    unshare_weights(model)
    prune(model)
    anonymise(model)
    unfolded = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if unfolded:
        raise UserError(
            f"{len(unfolded)} batch normalisations remain in the graph, such as {unfolded[0]}: they cost time at every "
            "inference; let each follow its convolution directly, so that it folds into the weights"
        )
    return model
