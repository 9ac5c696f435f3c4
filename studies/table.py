"""The table of a study: every method beside the baseline, with intervals over seeds and over blocks of images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import mean_iou
from pipeline.evaluation.paired import paired_bootstrap, t_interval
from serving.contract.errors import UserError
from serving.contract.files import write_atomically
from studies.record import WORK_DIR, Runs, load_runs, record_path, write_record

RESAMPLES = 10_000
# Resampling fewer blocks than this hardly reaches beyond the few values seen: then there is no interval.
MIN_BLOCKS = 5


def stacked(run: dict[str, Any], split: str) -> NDArray[np.int64]:
    """`[N,C,C]`: a confusion matrix per block of images."""
    by_block = run[split]["confusion_by_block"]
    return np.array([by_block[name] for name in sorted(by_block)], dtype=np.int64)


def beside_baseline(runs: Runs, method: str, baseline: str, split: str) -> dict[str, Any]:
    """A method beside the baseline on the seeds that both have."""
    seeds = sorted(set(runs[method]) & set(runs[baseline]))
    mious = [runs[method][seed][split]["miou"] for seed in seeds]
    row: dict[str, Any] = {
        "method": method,
        "split": split,
        "seeds": seeds,
        "miou": mious,
        "mean": statistics.mean(mious),
        "deviation": statistics.stdev(mious) if len(mious) > 1 else None,
        "boundary_iou": statistics.mean(runs[method][seed][split]["boundary_iou"] for seed in seeds),
        "iou_per_class": _mean_per_class([runs[method][seed][split]["iou_per_class"] for seed in seeds]),
        "contrast_steps": runs[method][seeds[0]]["training"]["contrast_steps"],
        "mean_anchors": _mean_anchors(runs[method], seeds),
        "seconds": statistics.mean(runs[method][seed]["training"]["seconds"] for seed in seeds),
    }
    if method == baseline:
        return row
    differences = [runs[method][seed][split]["miou"] - runs[baseline][seed][split]["miou"] for seed in seeds]
    row["difference"] = statistics.mean(differences)
    if len(seeds) > 1:
        interval = t_interval(differences)
        row["ci95_seeds"] = [interval.low, interval.high]
    # Confusions summed over the seeds: the frames vary here, the trainings do not.
    ours = sum(stacked(runs[method][seed], split) for seed in seeds)
    theirs = sum(stacked(runs[baseline][seed], split) for seed in seeds)
    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, np.ndarray)
    frames = paired_bootstrap(ours, theirs, resamples=RESAMPLES, seed=0)
    row["pooled_difference"] = mean_iou(ours.sum(axis=0)) - mean_iou(theirs.sum(axis=0))
    row["ci95_frames"] = [frames.low, frames.high] if frames.units >= MIN_BLOCKS else None
    row["blocks"] = frames.units
    return row


def write_table(study: str, baseline: str, command: str) -> None:
    """Write the record of a study and its table, which names the `command`.

    Raises:
        UserError: the study has no run, or none of the baseline.
    """
    runs = load_runs(study)
    if not runs:
        raise UserError(
            f"{study}: no runs, neither in {record_path(study)} nor in {WORK_DIR / study}; make them with "
            "`python -m studies.study run`"
        )
    if baseline not in runs:
        raise UserError(f"{study}: no run of the baseline {baseline!r}; it has: {', '.join(runs)}")
    order = [baseline, *(method for method in runs if method != baseline)]
    splits = [
        split for split in ("val", "test") if all(split in run for seeds in runs.values() for run in seeds.values())
    ]
    rows = [beside_baseline(runs, method, baseline, split) for split in splits for method in order]
    write_record(study, baseline, rows, runs)
    first = next(iter(runs[baseline].values()))
    text = _markdown(study, command, rows, first["class_names"], first[splits[0]]["protocol"])
    write_atomically(record_path(study).with_suffix(".md"), text.encode())


def _markdown(name: str, command: str, rows: list[dict[str, Any]], class_names: list[str], protocol: str) -> str:
    lines = [f"# {name}", "", f"Written by `{command}`. {protocol[:1].upper()}{protocol[1:]}.", ""]
    for split in dict.fromkeys(row["split"] for row in rows):
        chosen = [row for row in rows if row["split"] == split]
        lines += [
            f"## {split}",
            "",
            "| method | seeds | mIoU % | boundary IoU % | difference, points | 95 % over seeds (t) | "
            "95 % over frames | contrast steps | anchors | minutes |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *(_row(row) for row in chosen),
            "",
            "IoU per class, %, mean over seeds:",
            "",
            "| method | " + " | ".join(class_names) + " |",
            "|---|" + "---|" * len(class_names),
            *(
                f"| {row['method']} | " + " | ".join(_percent(value) for value in row["iou_per_class"]) + " |"
                for row in chosen
            ),
            "",
        ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    spread = f" ± {100 * row['deviation']:.2f}" if row["deviation"] is not None else ""
    difference = f"{100 * row['difference']:+.2f}" if "difference" in row else ""
    cells = [
        row["method"],
        ", ".join(map(str, row["seeds"])),
        f"{100 * row['mean']:.2f}{spread}",
        f"{100 * row['boundary_iou']:.2f}",
        difference,
        _interval(row.get("ci95_seeds")),
        _over_blocks(row),
        str(row["contrast_steps"]),
        "" if row["mean_anchors"] is None else f"{row['mean_anchors']:.0f}",
        f"{row['seconds'] / 60:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _mean_anchors(runs: Mapping[int, Any], seeds: Sequence[int]) -> float | None:
    """Mean over the seeds; None for a loss term that has no anchors."""
    counts = [runs[seed]["training"]["mean_anchors"] for seed in seeds]
    return None if None in counts else statistics.mean(counts)


def _over_blocks(row: dict[str, Any]) -> str:
    if "blocks" not in row:
        return ""
    if row["ci95_frames"] is None:
        return f"none ({row['blocks']} of {MIN_BLOCKS} blocks needed)"
    return f"{_interval(row['ci95_frames'])} ({row['blocks']} blocks)"


def _interval(bounds: list[float] | None) -> str:
    return f"[{100 * bounds[0]:+.2f}, {100 * bounds[1]:+.2f}]" if bounds else ""


def _mean_per_class(ious: list[list[float | None]]) -> list[float | None]:
    """Mean over the seeds of the IoU of every class; None for a class that is nowhere in the split."""
    means = np.array(ious, dtype=np.float64).mean(axis=0)
    return [None if np.isnan(mean) else float(mean) for mean in means]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
