"""What a run of an experiment is judged by, after its training: each outcome one number."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.data.datasets.shared.prepared import Prepared, PreparedSplit
from pipeline.evaluation.evaluation import evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.models.network.segmentor import Segmentor
from pipeline.params import Params
from serving.contract.errors import UserError
from studies.experiments.new_classes import added_classes_iou
from studies.features import separations


@dataclass(frozen=True)
class Outcome:
    """What kind of number it is.

    Attributes:
        unit: "points" for percentages, "nats" for cross entropies.
        words: what it is.
    """

    unit: str
    words: str


OUTCOMES = {
    "miou": Outcome("points", "mIoU at the labels' resolution"),
    "boundary_iou": Outcome("points", "boundary IoU"),
    "training_cross_entropy": Outcome("nats", "cross entropy in training, mean over the second half"),
    "nearest_mean_tap": Outcome("points", "pixels nearest to their class's mean, at the tap, means from train"),
    "nearest_mean_classifier": Outcome("points", "the same at the classifier's input"),
    "new_classes_by_mean": Outcome("points", "mean IoU of classes ignored in training, added by their means"),
    "new_classes_by_probe": Outcome("points", "the same, added by a linear probe"),
}


@dataclass(frozen=True)
class TrainedRun:
    """A finished training, and what it is judged on.

    Attributes:
        segmentor: what ships of it, on the CPU, in evaluation mode.
        prepared: the dataset, with the labels that it is judged by.
        judged: the images.
        params: that it trained with.
        curves: DVCLive's folder.
        seed: of the pair.
        ignored: train ids of classes that were ignored in training.
    """

    segmentor: Segmentor
    prepared: Prepared
    judged: PreparedSplit
    params: Params
    curves: Path
    seed: int
    ignored: tuple[int, ...] = ()


def measure(run: TrainedRun, wanted: Collection[str]) -> dict[str, float]:
    """The outcomes `wanted` of a run, each in its unit.

    Raises:
        UserError: a file is gone, or the images say nothing of an outcome.
    """
    found: dict[str, float] = {}
    if {"miou", "boundary_iou"} & set(wanted):
        found |= _by_masks(run)
    if "training_cross_entropy" in wanted:
        found["training_cross_entropy"] = second_half_mean(
            run.curves / "plots" / "metrics" / "cross_entropy.tsv", run.params.train.iterations
        )
    if {"nearest_mean_tap", "nearest_mean_classifier"} & set(wanted):
        found |= _by_features(run)
    if {"new_classes_by_mean", "new_classes_by_probe"} & set(wanted):
        added = added_classes_iou(
            run.segmentor,
            run.prepared.split("train"),
            run.judged,
            run.ignored,
            resize=run.params.evaluate.resize,
            seed=run.seed,
        )
        found |= {f"new_classes_by_{readout}": 100 * value for readout, value in added.items()}
    return {name: found[name] for name in wanted}


def second_half_mean(path: Path, iterations: int) -> float:
    """Mean over the second half of a training of what its curve holds: means since the report before.

    A report that reaches back into the first half counts with its part in the second.

    Args:
        path: DVCLive's file of one metric.
        iterations: length of the training.

    Raises:
        UserError: it is missing, or does not reach to the end.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(row["step"]), float(row[path.stem])) for row in csv.DictReader(file, delimiter="\t")]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path}: expected the curve of a training ({error}); train again") from None
    if not rows or rows[-1][0] != iterations:
        raise UserError(f"{path}: expected a curve up to iteration {iterations}; train again")
    total, before = 0.0, 0
    for step, value in rows:
        total += max(0.0, step - max(before, iterations / 2)) * value
        before = step
    return total / (iterations / 2)


def _by_masks(run: TrainedRun) -> dict[str, float]:
    predict = segmentor_predictor(
        run.segmentor, torch.device("cpu"), resize=run.params.evaluate.resize, protocol=run.params.evaluate.protocol
    )
    found = evaluate(
        predict,
        run.judged,
        run.prepared.num_classes,
        run.prepared.ignore_index,
        boundary_ratio=run.params.evaluate.boundary_ratio,
    )
    return {"miou": 100 * found.miou, "boundary_iou": 100 * found.boundary_iou}


def _by_features(run: TrainedRun) -> dict[str, float]:
    found = separations(run.segmentor, run.prepared.split("train"), run.judged, run.params.evaluate.resize)
    return {f"nearest_mean_{place}": 100 * values["nearest_mean"] for place, values in found.items()}
