"""Reading back what training and verification recorded of every branch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import curves_dir, last_weights_path, train_metrics_path, train_timing_path, verify_path
from serving.contract.errors import UserError
from serving.contract.files import file_sha256, read_json

Key = tuple[str, int, str]

# What a report says of where the time of a training went (`TimeReport`).
TIME_KEYS = ("seconds_per_part", "images_per_second", "peak_memory_bytes", "device", "precision", "threads", "epochs")
_UNNAMED = "a training whose weights it does not name (an older version wrote it)"
CURVES = ("cross_entropy", "validation_miou")


def load_verified(branches: Mapping[str, BranchConfig]) -> dict[Key, dict[str, Any]]:
    """Every row of the stage `verify`. Raises UserError when a branch has not been verified."""
    rows = {}
    for branch in branches.values():
        for row in read_json(verify_path(branch.method, branch.seed), made_by="verify")["targets"]:
            rows[branch.method, branch.seed, row["target"]] = row
    return rows


def load_training(branches: Mapping[str, BranchConfig]) -> dict[tuple[str, int], dict[str, Any]]:
    """Metrics and, where it was trained here, duration of every training and where its `time` went.

    Times of another training than the one whose weights are there are left out; `time_reason` says so.
    """
    rows = {}
    for branch in branches.values():
        row = dict(read_json(train_metrics_path(branch.method, branch.seed), made_by="train"))
        timing, weights = (path(branch.method, branch.seed) for path in (train_timing_path, last_weights_path))
        time = read_json(timing, made_by="train") if timing.exists() else {}
        if time:
            known, there = time.get("weights_sha256"), file_sha256(weights)
            if known != there:
                of = f"the training of the weights {known[:12]}, which are {there[:12]} here" if known else _UNNAMED
                row["time_reason"] = f"{timing.parent} is of {of}"
                time = {}
        row["seconds"] = time.get("seconds")
        if "seconds_per_part" in time:
            row["time"] = {key: time[key] for key in TIME_KEYS}
        rows[branch.method, branch.seed] = row
    return rows


def load_curves(branches: Mapping[str, BranchConfig]) -> dict[str, dict[str, list[list[float]]]]:
    """Training curves as DVCLive wrote them: quantity -> branch -> points of [iteration, value].

    Only what every branch logs: cross entropy (its mean since the point before) and validation mIoU in [0,1].

    Raises:
        UserError: a curve that is there is damaged.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for quantity in CURVES:
        for name, branch in branches.items():
            path = curves_dir(branch.method, branch.seed) / "plots/metrics" / f"{quantity}.tsv"
            if not path.exists():  # trained elsewhere: the curves stay where they were drawn
                continue
            found.setdefault(quantity, {})[name] = _points(path, quantity)
    return found


def _points(path: Path, quantity: str) -> list[list[float]]:
    try:
        text = path.read_text(encoding="utf-8")
        rows = [line.split("\t") for line in text.splitlines()]
        if not text.endswith("\n"):  # a number that is cut would be read as a shorter one
            raise ValueError("its last line has no end")
        step, value = rows[0].index("step"), rows[0].index(quantity)
        return [[float(row[step]), float(row[value])] for row in rows[1:]]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path}: expected a curve of {quantity!r} as `train` writes it, got {error}: delete the file to report "
            "without it"
        ) from error
