"""How an exported graph gets to disk, the same for every kind of ONNX artefact."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from export.graph.passes import serialise
from pipeline.layout.paths import MODEL_NAME
from serving.contract.files import write_atomically
from serving.contract.manifest import METADATA_KEY, Manifest, write_sidecar


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
