"""The rows that params.yaml asks for: one per target of every branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from export.targets.config import DeployConfig, TargetConfig
from pipeline.layout.branches import BranchConfig


@dataclass(frozen=True)
class ExpectedTarget:
    """A row that params.yaml asks for."""

    method: str
    seed: int
    target: str
    artifact: str
    runtime: str


def expected_targets(
    branches: Mapping[str, BranchConfig], targets: Mapping[str, TargetConfig], deploy: DeployConfig
) -> list[ExpectedTarget]:
    """The rows that params.yaml asks for, in its order."""
    return [
        ExpectedTarget(branch.method, branch.seed, name, target.artifact, target.runtime)
        for branch in branches.values()
        for name, target in deploy.targets_of(branch.method, targets).items()
    ]
