"""`python -m pipeline.commands.describe`: what trains and what ships, and what each costs.

Parameters, multiply-adds of one image (convolutions and matrix products), and activation memory in float32: for
training the bytes kept for the backward pass of a whole batch, for what ships the most that live at once for one image.
The loss's own arithmetic and memory banks are not networks and are not counted. No weights or images are read.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.prepared import resolve_root
from pipeline.data.preparing.config import PrepareConfig
from pipeline.layout.paths import PREPARED_DIR
from pipeline.models.costs import (
    ModuleCosts,
    count_parameters,
    multiply_adds,
    peak_activation_bytes,
    saved_activation_bytes,
)
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.models.training_heads.trainee import Trainee
from pipeline.params import PARAMS_PATH, Params, read_yaml, validate_params
from pipeline.recipes import load_recipe, merge_recipe
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.methods import MethodConfig
from serving.contract.command import program_name
from serving.contract.errors import UserError, did_you_mean, run_command
from serving.contract.files import read_json


@dataclass(frozen=True)
class NetworkDescription:
    """One network at one size.

    Attributes:
        input: `(B, 3, H, W)`; H and W are rounded up to the network's stride.
        modules: its parts.
        parameters: learnable numbers.
        multiply_adds: of one image.
        activation_bytes: training: kept for the backward pass of the whole batch; shipped: most that live at once.
    """

    input: tuple[int, int, int, int]
    modules: tuple[ModuleCosts, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


@dataclass(frozen=True)
class MethodDescription:
    """What trains and what ships.

    Attributes:
        backbone: name of the backbone.
        head: name of the head.
        num_classes: number of classes C.
        method: the training method.
        training: segmentor and training heads, on labelled and unlabelled images.
        shipped: the segmentor alone.
        training_images: number of training images, which may bound a memory bank; None where nobody said.
        bank_bytes: of the method's memory bank, 0 without one; None where it follows from the training images.
    """

    backbone: str
    head: str
    num_classes: int
    method: str
    training: NetworkDescription
    shipped: NetworkDescription
    training_images: int | None
    bank_bytes: int | None


def describe_networks(
    model: ModelConfig,
    method: MethodConfig,
    *,
    name: str,
    num_classes: int,
    size: tuple[int, int],
    batch_size: int,
    auxiliary: bool,
    training_images: int | None = None,
) -> MethodDescription:
    """Describe the network that `method` trains, and what is left of it after stripping.

    Args:
        model: the network.
        method: the training method.
        name: what the method is called.
        num_classes: number of classes C.
        size: height and width in pixels of an image.
        batch_size: labelled images per training step.
        auxiliary: whether auxiliary classifiers are trained.
        training_images: number of training images; None where it is not known.

    Raises:
        UserError: a memory bank for so many images is larger than it may be.
    """
    with torch.device("meta"):
        segmentor = build_segmentor(dataclasses.replace(model, pretrained=False), num_classes, seed=0)
        loss = build_loss_term(method, num_classes=num_classes, ignore_index=255, training_images=training_images or 1)
        trainee = attach_training_heads(segmentor, loss, auxiliary=auxiliary, seed=0)
    banks = sum(buffer.nbytes for buffer in loss.buffers())
    if method.mean_teacher is not None:
        batch_size += method.mean_teacher.unlabelled_batch_size or batch_size
    height, width = (-(-length // segmentor.stride) * segmentor.stride for length in size)
    return MethodDescription(
        backbone=model.backbone,
        head=model.head,
        num_classes=num_classes,
        method=name,
        training=_describe_training(trainee.train(), (batch_size, 3, height, width)),
        shipped=_describe_shipped(segmentor.eval(), (1, 3, height, width)),
        training_images=training_images,
        bank_bytes=None if banks and training_images is None else banks,
    )


def _describe_training(trainee: Trainee, shape: tuple[int, int, int, int]) -> NetworkDescription:
    images = torch.empty(shape, device="meta")
    forward = functools.partial(trainee, images, embed=True, everywhere=True)
    counts = multiply_adds(forward)
    counts = {name: count // shape[0] for name, count in counts.items()}
    parts: dict[str, nn.Module] = {
        "segmentor.backbone": trainee.segmentor.backbone,
        "segmentor.head": trainee.segmentor.head,
    }
    for kind, heads in trainee.training_heads.named_children():
        children = list(heads.named_children()) if kind != "auxiliary" else []
        parts |= {f"training_heads.{kind}.{name}": child for name, child in children}
        if kind == "auxiliary":
            parts[f"training_heads.{kind}"] = heads
    return NetworkDescription(
        input=shape,
        modules=_costs(parts, counts),
        parameters=count_parameters(trainee),
        multiply_adds=counts[""],
        activation_bytes=saved_activation_bytes(trainee, forward),
    )


def _describe_shipped(segmentor: Segmentor, shape: tuple[int, int, int, int]) -> NetworkDescription:
    images = torch.empty(shape, device="meta")
    counts = multiply_adds(lambda: segmentor(images))
    parts = {"backbone": segmentor.backbone, "head": segmentor.head}
    return NetworkDescription(
        input=shape,
        modules=_costs(parts, counts),
        parameters=count_parameters(segmentor),
        multiply_adds=counts[""],
        activation_bytes=peak_activation_bytes(segmentor, images),
    )


def _costs(parts: Mapping[str, nn.Module], counts: Mapping[str, int]) -> tuple[ModuleCosts, ...]:
    return tuple(
        ModuleCosts(name, type(part).__name__, count_parameters(part), counts.get(name, 0))
        for name, part in parts.items()
    )


def describe_params(params: Params, method: str | None = None, training_images: int | None = None) -> MethodDescription:
    """Describe what `params` train with `method`, by default the one that is deployed.

    Args:
        params: the settings.
        method: name of the training method.
        training_images: how many there are; by default as many as are prepared, if the dataset is.

    Raises:
        UserError: no such method, a dataset whose classes are in a folder that is not there, or a memory bank that is
            larger than it may be.
    """
    name = method or params.deploy.method
    if name not in params.methods:
        raise UserError(f"--method: no method {name!r} in {PARAMS_PATH}{did_you_mean(name, params.methods)}")
    return describe_networks(
        params.model,
        params.methods[name],
        name=name,
        num_classes=count_classes(params.prepare),
        size=params.train.augment.crop,
        batch_size=params.train.batch_size,
        auxiliary=params.train.auxiliary_weight > 0,
        training_images=training_images or _prepared_images(params.prepare),
    )


def _prepared_images(prepare: PrepareConfig) -> int | None:
    """Number of training images of the dataset, where it is the one that is prepared."""
    path = PREPARED_DIR / "dataset.json"
    prepared = read_json(path, made_by="prepare") if path.exists() else {}
    return len(prepared["splits"]["train"]) if prepared.get("dataset") == prepare.dataset else None


def count_classes(prepare: PrepareConfig) -> int:
    """Number of classes of a dataset; its files are read only where it has no fixed classes."""
    dataset = DATASETS.resolve(prepare.dataset)
    try:
        return len(dataset(None, prepare.options).class_names)
    except UserError:  # a folder of anyone's own data names its classes itself
        return len(dataset(resolve_root(prepare.root), prepare.options).class_names)


def rendered(description: MethodDescription) -> str:
    """The description as text for a terminal."""
    rows: list[tuple[str, str, str]] = []
    for title, network in (("training", description.training), ("shipped", description.shipped)):
        rows.append((f"{title}, input {list(network.input)}", "parameters", "multiply-adds/image"))
        rows += [(f"  {part.name}", f"{part.parameters:,}", f"{part.multiply_adds:,}") for part in network.modules]
        rows.append(("  total", f"{network.parameters:,}", f"{network.multiply_adds:,}"))
        memory = "alive at once for one image" if title == "shipped" else "kept for the backward pass of the batch"
        rows.append((f"  activations {memory}: {network.activation_bytes / 2**20:,.1f} MiB", "", ""))
    extra = description.training.parameters - description.shipped.parameters
    rows.append((f"only in training: {extra:,} parameters", "", ""))
    if description.bank_bytes is None:
        rows.append(("memory bank: as the number of training images makes it; --images says it before prepare", "", ""))
    elif description.bank_bytes:
        size, images = f"{description.bank_bytes / 2**20:,.1f} MiB", f"{description.training_images:,} training images"
        rows.append((f"memory bank: {size} for {images}", "", ""))
    width = max(len(name) for name, count, _ in rows if count)
    title = f"{description.backbone} + {description.head}, {description.num_classes} classes, {description.method}"
    return "\n".join([title, *(f"{a:{width}}{b:>14}{c:>22}".rstrip() for a, b, c in rows)]) + "\n"


def main() -> int:
    """Print the description."""
    parser = argparse.ArgumentParser(
        prog=program_name("pipeline.commands.describe"), description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--recipe", help="as if this recipe were merged into params.yaml")
    parser.add_argument("--method", help="training method; default: the one that is deployed")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="default: the training crop")
    parser.add_argument("--images", type=int, help="number of training images; default: as many as are prepared")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    values: dict[str, Any] = read_yaml(PARAMS_PATH)
    source = str(PARAMS_PATH)
    if arguments.recipe:
        merge_recipe(values, load_recipe(arguments.recipe))
        source = f"{PARAMS_PATH} with recipe {arguments.recipe}"
    params = validate_params(values, source)
    if arguments.size:
        if min(arguments.size) < 1:
            raise UserError(f"--size: expected a height and a width of at least 1, got {arguments.size}")
        augment = dataclasses.replace(params.train.augment, crop=tuple(arguments.size))
        params = dataclasses.replace(params, train=dataclasses.replace(params.train, augment=augment))
    if arguments.images is not None and arguments.images < 1:
        raise UserError(f"--images: expected at least 1, got {arguments.images}")
    description = describe_params(params, arguments.method, arguments.images)
    if arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(description), indent=2) + "\n")
    else:
        sys.stdout.write(rendered(description))
    return 0


if __name__ == "__main__":
    run_command(main)
