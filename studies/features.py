"""`python -m studies.features --recipe camvid-cpu`: did the contrast reach the features that ship?

A contrast pulls embeddings together behind a projection that inference does not have; it helps only as far as the
features before the projection follow, and what the classifier makes its decision from comes later still. Of every run
of a study this measures how well the classes separate in two places of the network that ships, their features scaled
to unit length as embeddings are:

- `tap`: the tensor that `pixel_contrast` projects, the head's input (`Taps.HEAD_INPUT`);
- `classifier`: the input of the convolution that gives the logits, in the light head one separable convolution later.

The means of the classes are taken on images of train, and the pixels that are judged come from test:

- `nearest_mean`: mean over classes of the share of pixels nearest to the mean of their own class;
- `within`: mean over classes of 1 - cosine to the own class's mean; `between`: the same between means of classes.

Written to docs/results/<recipe>-features.json. The runs' weights must still be under runs/study.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.models.network.segmentor import Segmentor
from pipeline.training.checkpoints import load_trainee
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import write_json
from serving.images.geometry import place, resize_nearest
from studies.record import RESULTS_DIR, WORK_DIR
from studies.study import open_prepared, study_params

PLACES = ("tap", "classifier")

Pixels = tuple[Tensor, Tensor]
"""Unit features `[N,D]` float32 and labels `[N]` int64 of the labelled pixels of an image."""


def features_at(segmentor: Segmentor, pixels: Tensor) -> dict[str, Tensor]:
    """The features `[1,D,h,w]` of one image at each of `PLACES`, as the network has them.

    Args:
        segmentor: in evaluation mode.
        pixels: `[1,3,H,W]` RGB in 0..255, H and W multiples of the stride.
    """
    convolutions = [
        part for part in segmentor.head.get_submodule("classifier").modules() if isinstance(part, nn.Conv2d)
    ]
    seen: list[Tensor] = []
    handle = convolutions[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.inference_mode():
            head_input = segmentor.features(segmentor.normalise(pixels)).head.input
    finally:
        handle.remove()
    return {"tap": head_input, "classifier": seen[0]}


def part_of(split: PreparedSplit, *, every: int, first: int = 0) -> PreparedSplit:
    """Every `every`-th image of a split, from number `first` (0 is the first) on."""
    return dataclasses.replace(split, entries=split.entries[first::every])


def labelled_pixels(
    segmentor: Segmentor, split: PreparedSplit, resize: tuple[int, int] | None
) -> Iterator[dict[str, Pixels]]:
    """Of every image of a split the features and labels at each of `PLACES`, without ignored pixels.

    Args:
        segmentor: in evaluation mode.
        split: the images, taken as they are, without augmentation.
        resize: height and width that images are resized to first, or None.
    """
    for index in range(len(split)):
        image, _ = place(split.read_image(index), stride=segmentor.stride, resize=resize)
        label = split.read_label(index)
        rows, columns = resize or label.shape
        found = {}
        for name, features in features_at(segmentor, torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]).items():
            # The padding at the bottom and right has no label.
            height = features.shape[-2] * rows // image.shape[0]
            width = features.shape[-1] * columns // image.shape[1]
            small: NDArray[np.uint8] = resize_nearest(label, height, width)
            ids = torch.from_numpy(small.astype(np.int64)).flatten()
            kept = ids != split.dataset.ignore_index
            unit = F.normalize(features[0, :, :height, :width].flatten(1).T, dim=1)
            found[name] = (unit[kept], ids[kept])
        yield found


class ClassMeans:
    """The means of the classes' unit features, scaled to unit length, gathered image by image.

    Attributes:
        counts: `[C]` int64, pixels of every class so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = torch.zeros(num_classes, dtype=torch.int64)
        self._sums: Tensor | None = None

    def add(self, pixels: Pixels) -> None:
        """Take an image's pixels in."""
        features, labels = pixels
        if self._sums is None:
            self._sums = torch.zeros(len(self.counts), features.shape[1], dtype=torch.float64)
        self._sums.index_add_(0, labels, features.double())
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    @property
    def directions(self) -> Tensor:
        """`[C,D]` float32, unit length; zeros for a class without a pixel."""
        assert self._sums is not None, "means of no image"
        return F.normalize(self._sums, dim=1).float()


class Separation:
    """How well classes separate by their means, judged image by image.

    Args:
        means: of the classes, complete, from images that are not judged.
    """

    def __init__(self, means: ClassMeans) -> None:
        self._known = means.counts > 0
        self._directions = means.directions
        self._pixels = torch.zeros_like(means.counts)
        self._hits = torch.zeros_like(means.counts)
        self._distances = torch.zeros(len(means.counts), dtype=torch.float64)

    def add(self, pixels: Pixels) -> None:
        """Judge an image's pixels; those of a class that has no mean are left out."""
        kept = self._known[pixels[1]]
        features, truth = pixels[0][kept], pixels[1][kept]
        similarity = features @ self._directions.T
        nearest = similarity.masked_fill(~self._known, -2.0).argmax(dim=1)  # a cosine is at least -1
        self._pixels += torch.bincount(truth, minlength=len(self._pixels))
        self._hits += torch.bincount(truth[nearest == truth], minlength=len(self._pixels))
        self._distances.index_add_(0, truth, 1 - similarity.gather(1, truth[:, None]).squeeze(1).double())

    def result(self) -> dict[str, float]:
        """`nearest_mean`, `within` and `between`, over the classes that have a mean and a judged pixel.

        Raises:
            UserError: there is no such class.
        """
        present = self._pixels > 0
        count = int(present.sum())
        if not count:
            raise UserError("no class is labelled both in the images of the means and in those that are judged")
        apart = 1 - (self._directions[present] @ self._directions[present].T).double()
        return {
            "nearest_mean": float((self._hits[present] / self._pixels[present]).double().mean()),
            "within": float((self._distances[present] / self._pixels[present]).mean()),
            "between": float(apart.sum()) / max(count * (count - 1), 1),
        }


def separations(
    segmentor: Segmentor, train: PreparedSplit, judged: PreparedSplit, resize: tuple[int, int] | None
) -> dict[str, dict[str, float]]:
    """How well classes separate at each of `PLACES`.

    Args:
        segmentor: in evaluation mode.
        train: the images that the means are taken on.
        judged: those whose pixels are judged.
        resize: height and width that images are resized to first, or None.
    """
    means = {name: ClassMeans(segmentor.num_classes) for name in PLACES}
    for image in labelled_pixels(segmentor, train, resize):
        for name, pixels in image.items():
            means[name].add(pixels)
    found = {name: Separation(means[name]) for name in PLACES}
    for image in labelled_pixels(segmentor, judged, resize):
        for name, pixels in image.items():
            found[name].add(pixels)
    return {name: separation.result() for name, separation in found.items()}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog=program_name("studies.features"), description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--methods", nargs="+", help="default: those of the recipe")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the recipe")
    parser.add_argument("--step", type=int, default=4, help="take every N-th image of train and of test (default 4)")
    arguments = parser.parse_args()
    if arguments.step < 1:
        raise UserError(f"--step: expected at least 1, got {arguments.step}")
    params = study_params(arguments.recipe, arguments.methods, arguments.seeds)
    prepared = open_prepared(params, arguments.recipe)
    train, test = (part_of(prepared.split(name), every=arguments.step) for name in ("train", "test"))
    rows = []
    for branch in params.branches.values():
        folder: Path = WORK_DIR / arguments.recipe / branch.name
        segmentor = load_trainee(folder, params.train.checkpoint)[0].segmentor
        found = separations(segmentor, train, test, params.evaluate.resize)
        rows.append({"method": branch.method, "seed": branch.seed} | found)
        shown = "; ".join(f"{name}: nearest mean {values['nearest_mean']:.4f}" for name, values in found.items())
        sys.stdout.write(f"{branch.name}: {shown}\n")
        sys.stdout.flush()
    content = {"step": arguments.step, "means_from": "train", "judged_on": "test", "rows": rows}
    write_json(RESULTS_DIR / f"{arguments.recipe}-features.json", content)
    return 0


if __name__ == "__main__":
    run_command(main)
