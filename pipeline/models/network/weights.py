"""Weights on disk: tensors as safetensors, and the stripped segmentor with its description."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import UserError
from serving.contract.files import atomic_dir, atomic_path, read_json, write_json
from serving.contract.schema import Problems, build

_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors, written in Rust, hands on what the system said


@dataclass(frozen=True)
class SegmentorInfo:
    """What the stripped segmentor needs besides its weights to be rebuilt, exported and explained.

    Attributes:
        model: the network's configuration.
        num_classes: number of classes C.
        class_names: C names, in index order.
        palette: C RGB colours.
        ignore_index: label outside every class.
        resize: `(height, width)` to which images are resized first, or None for their own size.
        provenance: where the weights come from (method, seed, hashes); nothing that changes from run to run.
    """

    model: ModelConfig
    num_classes: int
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int
    resize: tuple[int, int] | None = None
    provenance: dict[str, object] = field(default_factory=dict)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically; equal tensors give equal bytes.

    Raises:
        UserError: the folder or the file cannot be written.
    """
    with atomic_path(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
        try:
            save_file(plain, temporary)
        except safetensors.SafetensorError as error:
            number = _OS_ERROR.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_tensors(path: Path, *, made_by: str) -> dict[str, Tensor]:
    """Read tensors from safetensors. Raises UserError when the file is missing or damaged."""
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the output of `{made_by}`: run it first") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a readable safetensors file ({error}); delete it and run `{made_by}` again"
        ) from None
    return tensors


def save_segmentor(segmentor: Segmentor, info: SegmentorInfo, path: Path) -> None:
    """Write `segmentor.safetensors` and `segmentor.json` into the folder `path`, atomically."""
    with atomic_dir(path) as temporary:
        save_tensors(segmentor.state_dict(), temporary / "segmentor.safetensors")
        write_json(temporary / "segmentor.json", info)


def load_segmentor(path: Path) -> tuple[Segmentor, SegmentorInfo]:
    """Rebuild the segmentor saved in the folder `path`, in evaluation mode on the CPU.

    Raises:
        UserError: a file is missing, damaged, or the weights do not fit the described network.
    """
    values = read_json(path / "segmentor.json", made_by="strip")
    problems = Problems()
    info = build(SegmentorInfo, values, "segmentor", problems)
    if info is None:
        raise UserError(f"{path / 'segmentor.json'}: not a description of a segmentor:\n  " + "\n  ".join(problems))
    # Weights come from the file: none are fetched, and the seed is without effect.
    model = dataclasses.replace(info.model, pretrained=False)
    segmentor = build_segmentor(model, info.num_classes, seed=0)
    tensors = load_tensors(path / "segmentor.safetensors", made_by="strip")
    load_weights(segmentor, tensors, path / "segmentor.safetensors")
    return segmentor.eval(), info


def load_weights(module: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load `tensors` into `module`, all and exactly; UserError names the first that does not fit."""
    try:
        module.load_state_dict(dict(tensors), strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path}: the weights do not fit the network that its JSON describes: {detail[:400]}") from None
