"""`python -m studies.features --recipe camvid-cpu`: did the contrast reach the features that ship?

A contrast pulls embeddings together behind a projection that inference does not have; it helps only as far as the
features before the projection follow. Of every run of a study this measures how well the classes separate in those
features (the input of the head's classifier, scaled to unit length as embeddings are) on val:

- `nearest_mean`: mean over classes of the share of pixels nearest to the mean of their own class, the means taken on
  every second image and the pixels from the others;
- `within`: mean over classes of 1 - cosine to the own class's mean; `between`: the same between means of classes.

Written to docs/results/<recipe>-features.json. The runs' weights must still be under runs/study.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.prepared import Prepared
from pipeline.models.network.segmentor import Segmentor
from pipeline.training.checkpoints import load_trainee
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import write_json
from serving.images.geometry import place, resize_nearest
from studies.record import RESULTS_DIR, WORK_DIR
from studies.study import open_prepared, study_params


def separation(fitted: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], num_classes: int) -> dict[str, float]:
    """How well classes separate, by their means.

    Args:
        fitted: unit features `[N,D]` float and labels `[N]` int64 that the means are taken on.
        held_out: the same, of the pixels that are judged. Classes that either lacks are left out.
        num_classes: C.
    """
    features, labels = fitted
    others, truth = held_out
    present = [k for k in range(num_classes) if (labels == k).any() and (truth == k).any()]
    means = F.normalize(torch.stack([features[labels == k].mean(dim=0) for k in present]), dim=1)
    similarity = others @ means.T
    nearest = similarity.argmax(dim=1)
    shares, within = [], []
    for index, k in enumerate(present):
        own = truth == k
        shares.append(float((nearest[own] == index).double().mean()))
        within.append(float((1 - similarity[own, index]).double().mean()))
    apart = 1 - means @ means.T
    count = len(present)
    return {
        "nearest_mean": float(np.mean(shares)),
        "within": float(np.mean(within)),
        "between": float(apart.sum()) / max(count * (count - 1), 1),
    }


def val_features(
    segmentor: Segmentor, prepared: Prepared, resize: tuple[int, int] | None, start: int, step: int
) -> tuple[Tensor, Tensor]:
    """Unit features `[N,D]` and labels `[N]` of every `step`-th image of val from `start` on; no ignored pixels."""
    split = prepared.split("val")
    features, labels = [], []
    for index in range(start, len(split), step):
        image, _ = place(split.read_image(index), stride=segmentor.stride, resize=resize)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found = F.normalize(segmentor.features(segmentor.normalise(pixels)).head.input, dim=1)[0]
        height, width = found.shape[-2:]
        rows, columns = resize or split.read_label(index).shape
        # The padding at the bottom and right has no label.
        height, width = height * rows // image.shape[0], width * columns // image.shape[1]
        small: NDArray[np.uint8] = resize_nearest(split.read_label(index), height, width)
        label = torch.from_numpy(small.astype(np.int64)).flatten()
        kept = label != prepared.ignore_index
        features.append(found[:, :height, :width].flatten(1).T[kept])
        labels.append(label[kept])
    return torch.cat(features), torch.cat(labels)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog=program_name("studies.features"), description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--methods", nargs="+", help="default: those of the recipe")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: those of the recipe")
    parser.add_argument("--step", type=int, default=8, help="take every N-th image, from the first and from the middle")
    arguments = parser.parse_args()
    if arguments.step < 2:
        raise UserError("--step: expected at least 2: means and judged pixels come from different images")
    params = study_params(arguments.recipe, arguments.methods, arguments.seeds)
    prepared = open_prepared(params, arguments.recipe)
    rows = []
    for branch in params.branches.values():
        folder: Path = WORK_DIR / arguments.recipe / branch.name
        segmentor = load_trainee(folder, params.train.checkpoint)[0].segmentor
        halves = [
            val_features(segmentor, prepared, params.evaluate.resize, start, arguments.step)
            for start in (0, arguments.step // 2)
        ]
        row = {"method": branch.method, "seed": branch.seed} | separation(halves[0], halves[1], prepared.num_classes)
        rows.append(row)
        sys.stdout.write(
            f"{branch.name}: nearest mean {row['nearest_mean']:.4f}, within {row['within']:.4f}, "
            f"between {row['between']:.4f}\n"
        )
        sys.stdout.flush()
    write_json(RESULTS_DIR / f"{arguments.recipe}-features.json", {"step": arguments.step, "rows": rows})
    return 0


if __name__ == "__main__":
    run_command(main)
