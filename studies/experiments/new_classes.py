"""What features are good for beyond the classes they were trained on: classes added without training the network.

Some classes were ignored in training. With the network as it is they are added from ten labelled training images, at
the input of the classifier and in two ways: every pixel is given the class of the nearest mean (`mean`, by cosine), or
that of a linear classifier fitted on these features (`probe`). Both are fitted for all classes, on the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.evaluation.metrics import confusion_matrix, iou_per_class
from pipeline.models.network.segmentor import Segmentor
from serving.contract.errors import UserError
from studies.features import ClassMeans, Pixels, labelled_pixels

IMAGES = 10

_PROBE_STEPS = 100
_PROBE_DECAY = 1e-4


def added_classes_iou(
    segmentor: Segmentor,
    train: PreparedSplit,
    judged: PreparedSplit,
    classes: Sequence[int],
    *,
    resize: tuple[int, int] | None,
    seed: int,
    images: int = IMAGES,
) -> dict[str, float]:
    """Mean IoU in [0,1] of the classes that were added, at the resolution of the features, by each way to add them.

    Args:
        segmentor: in evaluation mode.
        train: where the labelled images are drawn from, with all its labels.
        judged: the images that are judged.
        classes: train ids of those that are added.
        resize: height and width that images are resized to first, or None.
        seed: of the draw.
        images: how many are drawn.

    Raises:
        UserError: no class to add, or too few images with these classes.
    """
    few = dataclasses.replace(
        train, entries=tuple(train.entries[index] for index in draw(train, classes, images, seed))
    )
    fitted = [image["classifier"] for image in labelled_pixels(segmentor, few, resize)]
    pixels = torch.cat([features for features, _ in fitted]), torch.cat([labels for _, labels in fitted])
    readouts = {
        "mean": nearest_mean(pixels, segmentor.num_classes),
        "probe": linear_probe(pixels, segmentor.num_classes),
    }
    confusions = {name: np.zeros((segmentor.num_classes,) * 2, dtype=np.int64) for name in readouts}
    for image in labelled_pixels(segmentor, judged, resize):
        features, labels = image["classifier"]
        for name, scores in readouts.items():
            truth, guess = (ids.to(torch.uint8).numpy()[None] for ids in (labels, scores(features).argmax(dim=1)))
            confusions[name] += confusion_matrix(truth, guess, segmentor.num_classes, judged.dataset.ignore_index)
    return {name: float(iou_per_class(confusion)[list(classes)].mean()) for name, confusion in confusions.items()}


def draw(train: PreparedSplit, classes: Sequence[int], count: int, seed: int) -> list[int]:
    """Numbers of `count` images that hold one of the classes, as many with each as there are; sorted.

    Args:
        train: the images.
        classes: train ids, at least one.
        count: how many.
        seed: of their order.

    Raises:
        UserError: no class is given, or fewer images hold one, or none holds some class.
    """
    if not classes:
        raise UserError("no class was ignored in training, so that none can be added; give the arm `ignore_classes`")
    order = np.random.default_rng(stream_seed("images of new classes", seed)).permutation(len(train)).tolist()
    present = {index: set(np.unique(train.read_label(index)).tolist()) for index in order}
    holding = [[index for index in order if each in present[index]] for each in classes]
    chosen: list[int] = []
    for rank in range(len(order)):
        for images in holding:
            if rank < len(images) and images[rank] not in chosen and len(chosen) < count:
                chosen.append(images[rank])
    if len(chosen) < count or not all(holding):
        held = ", ".join(f"class {each}: {len(images)}" for each, images in zip(classes, holding, strict=True))
        raise UserError(f"expected {count} training images with the classes to add, and some with each; got {held}")
    return sorted(chosen)


def nearest_mean(pixels: Pixels, num_classes: int) -> Callable[[Tensor], Tensor]:
    """Scores `[N,C]` of unit features `[N,D]`: cosines to the classes' means; -inf for a class without a pixel."""
    means = ClassMeans(num_classes)
    means.add(pixels)
    directions = means.directions
    return lambda features: (features @ directions.T).masked_fill(means.counts == 0, float("-inf"))


def linear_probe(pixels: Pixels, num_classes: int) -> Callable[[Tensor], Tensor]:
    """Scores `[N,C]` of unit features `[N,D]`: logits of a fitted linear classifier.

    Cross entropy, every class weighing the same, with a small weight decay, by 100 steps of L-BFGS from zero: nothing
    in it is random.
    """
    features, labels = pixels
    counts = torch.bincount(labels, minlength=num_classes)
    class_weights = torch.where(counts > 0, 1.0 / counts.clamp_min(1), 0.0)
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_PROBE_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(features, weight, bias), labels, weight=class_weights)
        value = value + _PROBE_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    weight, bias = weight.detach(), bias.detach()
    return lambda features: F.linear(features, weight, bias)
