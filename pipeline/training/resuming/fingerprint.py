"""What determines a training, as one hash: a state is gone on from only where this is the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.data.datasets.shared.dataset import Dataset
from pipeline.losses.shared.term import LossTerm
from pipeline.models.network.segmentor import Segmentor

# The rooms that stage `train` depends on in dvc.yaml, besides those of the one dataset, head and loss.
ROOMS = (
    "pipeline.training",
    "pipeline.evaluation",
    "pipeline.losses.shared",
    "pipeline.losses.supervised",
    "pipeline.models.network",
    "pipeline.models.training_heads",
    "pipeline.data.reading",
    "pipeline.data.datasets.shared",
    "pipeline.compute",
    "serving.images",
    "serving.contract",
)
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def training_fingerprint(
    settings: Mapping[str, Any],
    *,
    segmentor: Segmentor,
    term: LossTerm,
    dataset: Dataset,
    device: torch.device,
    dtype: torch.dtype | None,
) -> str:
    """sha256 over settings, data, code, the versions of packages that compute, device and precision.

    Args:
        settings: everything from params.yaml that can change a weight, and the hash of the data, as plain values.
        segmentor: whose head's file counts.
        term: the loss term, whose room counts.
        dataset: the dataset, whose room counts.
        device: what is computed on.
        dtype: of autocast, or None.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{device.type} {dtype} {[(name, importlib.metadata.version(name)) for name in PACKAGES]}".encode())
    for path in code_files(segmentor, term, dataset):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def code_files(segmentor: Segmentor, term: LossTerm, dataset: Dataset) -> list[Path]:
    """The files of code that a training's result depends on, sorted room by room."""
    rooms = [*map(_folder, ROOMS), _file(term).parent, _file(dataset).parent]
    files = [path for room in rooms for path in sorted(room.rglob("*.py"))]
    return [*files, _file(segmentor.head)]


def _file(thing: object) -> Path:
    return Path(inspect.getfile(type(thing)))


def _folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent
