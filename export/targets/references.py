"""What must hold between the sections of params.yaml: names that one section takes from another."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from export.targets.config import CONTROL, CompileConfig, ExportConfig, needed_compiles, needed_exports
from pipeline.layout.branches import BranchConfig, methods_of, seeds_of
from serving.contract.errors import did_you_mean
from serving.contract.schema import Problems

TAKEN = ("curves", "stripped", "trained")  # what a branch's folder holds besides
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


def check_references(sections: Mapping[str, Any], given: Mapping[str, Any], problems: Problems) -> None:
    """Add every reference that leads nowhere, and every name that cannot be a folder.

    Args:
        sections: section -> its object; None for one that is wrong in itself, whose references are not judged.
        given: what YAML gave.
        problems: every problem found is added here.
    """
    _check_branches(sections, given, problems)
    _check_choices(sections, problems)
    _check_folders(sections, problems)
    if sections["deploy"] is not None:
        _check_products(sections, problems)


def _expect(path: str, name: str, known: Collection[str], where: str, problems: Problems) -> bool:
    if name not in known:
        problems.add(path, f"{name!r} is not in {where}{did_you_mean(name, known)}")
    return name in known


def _check_branches(sections: Mapping[str, Any], given: Mapping[str, Any], problems: Problems) -> None:
    branches, methods = sections["branches"], given.get("methods")
    names = list(methods) if isinstance(methods, Mapping) else []
    for key, branch in branches.items():
        if not _expect(f"branches.{key}.method", branch.method, names, "the section methods", problems):
            continue
        if branch.method == CONTROL:
            problems.add(f"branches.{key}.method", f"{CONTROL!r} is the baseline against itself; choose another name")
        if key != branch.name:
            problems.add(f"branches.{key}", f"{branch.method} with seed {branch.seed} must be called {branch.name}")
        method = sections["methods"].get(branch.method)
        if method is not None and branch.loss != method.loss:
            problems.add(
                f"branches.{key}.loss", f"methods.{branch.method} has the loss {method.loss!r}, got {branch.loss!r}"
            )


def _check_choices(sections: Mapping[str, Any], problems: Problems) -> None:
    branches, targets = sections["branches"], sections["targets"]
    deploy, certify, gate = sections["deploy"], sections["certify"], sections["gate"]
    methods = methods_of(branches)
    if branches and deploy:
        _expect("deploy.method", deploy.method, methods, "the section branches", problems)
    if (
        branches
        and certify
        and _expect("certify.baseline", certify.baseline, methods, "the section branches", problems)
    ):
        paired = seeds_of(branches, certify.baseline)
        for key, branch in branches.items():
            if branch.seed not in paired:
                problems.add(
                    f"branches.{key}",
                    f"nothing to compare it with: {certify.baseline} has no branch of seed {branch.seed}",
                )
    for name in deploy.everywhere if deploy else ():
        _expect("deploy.everywhere", name, targets, "the section targets", problems)
    if certify and _expect("certify.target", certify.target, targets, "the section targets", problems) and deploy:
        where = "deploy.everywhere: every branch must have it"
        _expect("certify.target", certify.target, deploy.everywhere, where, problems)
    for name in gate.required if gate else ():
        _expect("gate.required", name, targets, "the section targets", problems)
    for name, target in targets.items():
        _expect(f"targets.{name}.artifact", target.artifact, sections["artifacts"], "the section artifacts", problems)


def _check_folders(sections: Mapping[str, Any], problems: Problems) -> None:
    for section in ("artifacts", "targets"):
        for name in sections[section]:
            if not _FOLDER_NAME.fullmatch(name):
                problems.add(f"{section}.{name}", "names become folders: expected letters, digits, '_' and '-' only")
            elif name in TAKEN:
                problems.add(f"{section}.{name}", f"a branch has a folder of that name; expected none of {TAKEN}")
    compiled = {name for name, target in sections["targets"].items() if target.compiled}
    for name in sections["artifacts"].keys() & compiled:
        problems.add(f"targets.{name}", "an artifact has that name, and both would be files of one folder")


def _check_products(sections: Mapping[str, Any], problems: Problems) -> None:
    """What `exports` and `compiles` name, and that they name everything that a target runs."""
    branches, artifacts, targets, deploy = (sections[name] for name in ("branches", "artifacts", "targets", "deploy"))
    for key, entry in sections["exports"].items():
        known = _expect(f"exports.{key}.branch", entry.branch, branches, "the section branches", problems)
        if not _expect(f"exports.{key}.artifact", entry.artifact, artifacts, "the section artifacts", problems):
            continue
        kind = artifacts[entry.artifact].kind
        if entry.kind != kind:
            problems.add(
                f"exports.{key}.kind", f"artifacts.{entry.artifact} is of the kind {kind!r}, got {entry.kind!r}"
            )
        if known and key != entry.name:
            problems.add(f"exports.{key}", f"must be called {entry.name}")
    for key, entry in sections["compiles"].items():
        known = _expect(f"compiles.{key}.branch", entry.branch, branches, "the section branches", problems)
        compiled = [name for name, target in targets.items() if target.compiled]
        if not _expect(f"compiles.{key}.target", entry.target, compiled, "the targets that are compiled", problems):
            continue
        artifact = targets[entry.target].artifact
        if entry.artifact != artifact:
            problems.add(
                f"compiles.{key}.artifact", f"targets.{entry.target} runs {artifact!r}, got {entry.artifact!r}"
            )
        if known and key != entry.name:
            problems.add(f"compiles.{key}", f"must be called {entry.name}")
    for section, needed in (
        ("exports", needed_exports(branches, artifacts, targets, deploy)),
        ("compiles", needed_compiles(branches, targets, deploy)),
    ):
        for key, entry in needed.items():
            if key not in sections[section]:
                problems.add(section, f"a target needs the line `{key}: {shown(entry)}`")


def shown(entry: BranchConfig | ExportConfig | CompileConfig) -> str:
    """An entry as it is written in params.yaml."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in vars(entry).items()) + "}"
