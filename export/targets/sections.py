"""The sections `branches`, `exports` and `compiles` as they are written in params.yaml."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from export.targets.artifact_config import ArtifactConfig
from export.targets.config import DeployConfig, TargetConfig, needed_compiles, needed_exports
from pipeline.layout.branches import BranchConfig
from serving.contract.schema import Problems, convert

_SECTIONS: dict[str, Any] = {
    "branches": dict[str, BranchConfig],
    "artifacts": dict[str, ArtifactConfig],
    "targets": dict[str, TargetConfig],
    "deploy": DeployConfig,
}


def branch_entries(
    methods: Mapping[str, Mapping[str, Any]], names: Iterable[str], seeds: Iterable[int]
) -> dict[str, dict[str, Any]]:
    """The section `branches` for every method with every seed.

    Args:
        methods: the section `methods`.
        names: of methods in it.
        seeds: one branch each.
    """
    seeds = list(seeds)
    branches = [BranchConfig(name, str(methods[name]["loss"]), seed) for name in names for seed in seeds]
    return {branch.name: dataclasses.asdict(branch) for branch in branches}


def fill_in(values: dict[str, Any]) -> None:
    """Set `exports` and `compiles` in `values` to what its branches, artefacts, targets and deployment need.

    Where one of those sections is not valid nothing is changed: whoever validates the whole will say so.

    Args:
        values: params.yaml as YAML gave it; changed in place.
    """
    problems = Problems()
    found = {name: convert(hint, values.get(name) or {}, name, problems) for name, hint in _SECTIONS.items()}
    if problems:
        return
    branches, artifacts, targets, deploy = found.values()
    for section, needed in (
        ("exports", needed_exports(branches, artifacts, targets, deploy)),
        ("compiles", needed_compiles(branches, targets, deploy)),
    ):
        values[section] = {key: dataclasses.asdict(entry) for key, entry in needed.items()}
