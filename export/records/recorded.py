"""Reading back what training and verification recorded of every branch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import train_metrics_path, train_timing_path, verify_path
from serving.contract.files import read_json

Key = tuple[str, int, str]


def load_verified(branches: Mapping[str, BranchConfig]) -> dict[Key, dict[str, Any]]:
    """Every row of the stage `verify`. Raises UserError when a branch has not been verified."""
    rows = {}
    for branch in branches.values():
        for row in read_json(verify_path(branch.method, branch.seed), made_by="verify")["targets"]:
            rows[branch.method, branch.seed, row["target"]] = row
    return rows


def load_training(branches: Mapping[str, BranchConfig]) -> dict[tuple[str, int], dict[str, Any]]:
    """Metrics and, where it was trained here, duration of every training."""
    rows = {}
    for branch in branches.values():
        row = dict(read_json(train_metrics_path(branch.method, branch.seed), made_by="train"))
        timing = train_timing_path(branch.method, branch.seed)
        seconds = read_json(timing, made_by="train").get("seconds") if timing.exists() else None
        rows[branch.method, branch.seed] = row | {"seconds": seconds}
    return rows
