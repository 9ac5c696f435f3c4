"""Where the engine file of a target lies."""

from __future__ import annotations

from pathlib import Path

from export.targets.config import TargetConfig
from pipeline.layout.paths import MODEL_NAME, PLAN_NAME, artifact_dir


def engine_path(method: str, seed: int, name: str, target: TargetConfig) -> Path:
    """The file that a target of a branch runs: its artefact, or the plan compiled from it."""
    if target.compiled:
        return artifact_dir(method, seed, name) / PLAN_NAME
    return artifact_dir(method, seed, target.artifact) / MODEL_NAME
