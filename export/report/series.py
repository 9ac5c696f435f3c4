"""Accuracy per class of all methods, and of the baseline once for each set of seeds that it is met with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.pages.formatting import seeds_named

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """One network, or the trainings of one method together.

    Attributes:
        method: its name.
        seeds: which trainings, such as ` seeds 0 to 2`; empty where all methods have the same.
        group: 0 for the first set of seeds, 1 for the next: what has one number may be compared.
        iou: of every class in [0,1]; None for a class without ground truth.
        miou: their mean.
        boundary_iou: the mean boundary IoU.
    """

    method: str
    seeds: str
    group: int
    iou: Sequence[float | None]
    miou: float | None
    boundary_iou: float | None


def class_names(report: Report) -> list[str]:
    """Of the classes that `accuracy_series` tells of."""
    return [row["class"] for row in next(iter(_accuracies(report).values()))["per_class"]]


def accuracy_series(report: Report) -> list[Series]:
    """On the certified target; empty where nothing was compared.

    Args:
        report: report.json.
    """
    groups: dict[tuple[int, ...], dict[str, Mapping[str, Any]]] = {}
    for name, accuracy in _accuracies(report).items():
        groups.setdefault(tuple(each["seed"] for each in accuracy.get("seeds") or ()), {})[name] = accuracy
    found = []
    for group, (seeds, methods) in enumerate(groups.items()):
        said = f" {seeds_named(seeds)}" if len(groups) > 1 and seeds else ""
        first = next(iter(methods.values()))
        baseline = [row["baseline_iou"] for row in first["per_class"]]
        means = first["baseline_miou"], first["baseline_boundary_iou"]
        found.append(Series(report["baseline"], said, group, baseline, *means))
        for name, accuracy in methods.items():
            values = [row["iou"] for row in accuracy["per_class"]]
            found.append(Series(name, said, group, values, accuracy["miou"], accuracy["boundary_iou"]))
    return found


def _accuracies(report: Report) -> dict[str, Mapping[str, Any]]:
    entries = (report["certificate"].get("methods") or {}).items()
    return {name: entry["accuracy"] for name, entry in entries if "per_class" in entry["accuracy"]}
