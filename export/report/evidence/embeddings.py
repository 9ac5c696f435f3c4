"""Where the classes lie in a trained network before it was stripped: embeddings on two principal components."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import load_segmentor, load_tensors, load_weights
from pipeline.models.training_heads.projection import ProjectionHead
from serving.images.geometry import place, resize_nearest

_PREFIX = "training_heads.projections."
_PER_CLASS = 150


@dataclass(frozen=True)
class Projection:
    """Pixels of one network on the first two principal components of their embeddings.

    Attributes:
        points: `[N,2]` float64.
        classes: `[N]` class of each pixel, from the label.
        explained: share of the variance that lies on the two components, in [0,1].
        source: what was projected, in words.
    """

    points: NDArray[np.float64]
    classes: NDArray[np.int64]
    explained: float
    source: str


def project_embeddings(
    trained: Path, stripped: Path, checkpoint: str, split: PreparedSplit, images: int = 16
) -> Projection:
    """The embeddings that the contrast worked on, or without one the features that it would have projected.

    The segmentor is the stripped one, which is bit for bit the trained one; its projection head comes from the
    checkpoint. Of several tapped layers the deepest is shown.

    Args:
        trained: folder with the checkpoints.
        stripped: folder with the segmentor.
        checkpoint: the one that ships, `best` or `last`.
        split: images and labels; taken are up to `images`, evenly spaced, and of these 150 pixels of each class.
        images: how many images at most.

    Raises:
        UserError: a file is missing or damaged.
    """
    segmentor, info = load_segmentor(stripped)
    path = trained / f"{checkpoint}.safetensors"
    heads = _projections(path)
    project = heads[-1] if heads else None
    taps = "the head's input" if len(heads) < 2 else f"the last of {len(heads)} tapped layers"
    source = f"embeddings of {taps}" if heads else "features of the head's input: this method has no projection"
    embeddings, classes = [], []
    for index in np.unique(np.linspace(0, len(split) - 1, min(images, len(split))).round().astype(int)).tolist():
        found, labels = _pixels(segmentor, project, len(heads) > 1, split, index, info.resize)
        embeddings.append(found)
        classes.append(labels)
    points, kept = np.concatenate(embeddings), np.concatenate(classes)
    generator = np.random.default_rng(0)
    chosen = [np.flatnonzero(kept == each) for each in np.unique(kept)]
    order = np.concatenate([generator.permutation(each)[:_PER_CLASS] for each in chosen])
    return _principal(points[order].astype(np.float64), kept[order], source)


def _projections(path: Path) -> list[ProjectionHead]:
    """The projection heads of a checkpoint, shallow to deep, in evaluation mode."""
    tensors = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in load_tensors(path, made_by="train").items()
        if name.startswith(_PREFIX)
    }
    heads = []
    for index in range(len({name.partition(".")[0] for name in tensors})):
        own = {
            name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.partition(".")[0] == str(index)
        }
        dimension, channels = own["output.weight"].shape[:2]
        head = ProjectionHead(channels, dimension)
        load_weights(head, own, path)
        heads.append(head.eval())
    return heads


@torch.inference_mode()
def _pixels(
    segmentor: Segmentor,
    project: ProjectionHead | None,
    stages: bool,
    split: PreparedSplit,
    index: int,
    resize: tuple[int, int] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit embeddings `[N,D]` and classes `[N]` of the labelled pixels of an image."""
    image, _ = place(split.read_image(index), stride=segmentor.stride, resize=resize)
    label = split.read_label(index)
    rows, columns = resize or label.shape
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    features = segmentor.features(segmentor.normalise(pixels))
    tapped: Tensor = features.stages[-1] if stages else features.head.input
    embedded = F.normalize(tapped, dim=1) if project is None else project(tapped)
    # The padding at the bottom and right has no label.
    height = max(1, embedded.shape[-2] * rows // image.shape[0])
    width = max(1, embedded.shape[-1] * columns // image.shape[1])
    ids = resize_nearest(label, height, width).astype(np.int64).ravel()
    kept = ids != split.dataset.ignore_index
    flat = embedded[0, :, :height, :width].flatten(1).T.float().numpy()
    return flat[kept], ids[kept]


def _principal(points: NDArray[np.float64], classes: NDArray[np.int64], source: str) -> Projection:
    centred = points - points.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    total = float((values**2).sum())
    explained = float((values[:2] ** 2).sum()) / total if total > 0 else 0.0
    axes = axes[:2]
    # The sign of a component is arbitrary: its largest loading points up, so that equal networks give equal pictures.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return Projection(centred @ (axes * signs[:, None]).T, classes, explained, source)
