"""How an exported graph gets to disk, the same for every kind of ONNX artefact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

from export.artifacts.shared.exporter import ExportContext
from export.graph.deploy import CONFIDENCE_NAME, LOGITS_NAME, MASK_NAME, OutputKind
from export.graph.passes import serialise
from export.graph.structure import structure_sha256
from export.graph.tracing import OPSET
from pipeline.layout.paths import MODEL_NAME
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import tensors_sha256
from serving.contract.files import write_atomically
from serving.contract.manifest import METADATA_KEY, InputSpec, Manifest, OutputSpec, write_sidecar


def write_engine(
    model: ModelProto,
    segmentor: Segmentor,
    context: ExportContext,
    *,
    precision: str,
    output: OutputKind,
    details: Mapping[str, object] | None = None,
) -> Path:
    """Write an exported graph, and what its manifest says of it.

    Args:
        model: the graph.
        segmentor: that it was made of.
        context: where it goes.
        precision: of the arithmetic in it, that of its kind.
        output: what it gives.
        details: what only this kind of artefact has to say.

    Returns:
        Path of the engine file.

    Raises:
        UserError: the folder is not writable.
    """
    info = context.info
    outputs = [OutputSpec(MASK_NAME, "mask", "NHW", "uint8")]
    if output == "mask+confidence":
        outputs.append(OutputSpec(CONFIDENCE_NAME, "confidence", "NHW", "uint8"))
    provenance = dict(info.provenance) | {
        "backbone": info.model.backbone,
        "head": info.model.head,
        "weights_sha256": tensors_sha256(segmentor.state_dict()),
    }
    manifest = Manifest(
        name=context.name,
        kind="onnx",
        precision=precision,
        class_names=info.class_names,
        palette=info.palette,
        input=InputSpec(stride=segmentor.stride, resize=info.resize),
        outputs=tuple(outputs),
        ignore_index=info.ignore_index,
        provenance=provenance,
        details={"opset": OPSET, "logits": LOGITS_NAME, "structure_sha256": structure_sha256(model), **(details or {})},
    )
    return write_model(model, manifest, context.folder)


def write_model(model: ModelProto, manifest: Manifest, folder: Path) -> Path:
    """Write an ONNX graph with its manifest inside and beside it.

    Returns:
        Path of the engine file.

    Raises:
        UserError: the folder is not writable.
    """
    path = folder / MODEL_NAME
    write_atomically(path, serialise(model, {METADATA_KEY: manifest.to_json()}))
    write_sidecar(manifest, path)
    return path
