"""Trains and strips in a copy of the project to which a walk was added, within seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.recipes import merge
from tests.documents.project import copy_of_tracked_files
from tests.walks.page import walks

ITERATIONS = 4
TINY = {
    "prepare": {"options": {"train": 6, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}},
    "model": {"pretrained": False},
    "train": {
        "iterations": ITERATIONS,
        "batch_size": 2,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "augment": {"crop": [64, 96]},
        "validate_every": ITERATIONS,
        "checkpoint": "last",
    },
}
# One process for all stages: their `main` with the arguments that dvc.yaml gives them.
DRIVER = """
import sys
from pipeline.stages import prepare, strip, train

for stage, *arguments in ([prepare], *([stage, "--method", method, "--seed", "0"]
                                       for method in sys.argv[1:] for stage in (train, strip))):
    sys.argv = [stage.__name__, *arguments]
    assert stage.main() == 0
"""


def train_and_strip(folder: Path, walk: str, methods: list[str]) -> dict[str, Any]:
    """Add a walk to a copy of the project, train methods on a tiny `streets` there, and strip them.

    Args:
        folder: where the copy is made.
        walk: heading of the walk on docs/extending.md.
        methods: what trains; afterwards `Project` knows them.

    Returns:
        For each method `weights` (the sha256 of what was stripped), `metrics` and `curves` (the names of its curves).
    """
    root = copy_of_tracked_files(folder)
    walks()[walk].apply(root)
    params = root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    merge(values, TINY)
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DRIVER, *methods],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {method: _result(root, method) for method in methods}


def _result(root: Path, method: str) -> Mapping[str, Any]:
    segmentor = json.loads((root / f"artifacts/{method}-s0/stripped/segmentor.json").read_text())
    return {
        "segmentor": segmentor,
        "weights": segmentor["provenance"]["weights_sha256"],
        "metrics": json.loads((root / f"metrics/train/{method}-s0.json").read_text()),
        "curves": {path.stem for path in (root / f"reports/training/{method}-s0/plots/metrics").glob("*.tsv")},
    }
