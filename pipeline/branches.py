"""`python -m pipeline.branches`: write branches.yaml, what dvc.yaml loops over, from params.yaml.

DVC can loop over maps but not resolve registry names. This writes, per branch (a method with a seed), the source files
that its registry names resolve to, so that editing one loss retrains the methods that use it and nothing else. The file
is committed; `--check` (in `make lint` and in the stage `device`) refuses a stale one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts import ARTIFACTS_DIR, atomic_path, branch_name
from pipeline.closure import closure
from pipeline.config.params import PARAMS_PATH, Params, load_params, read_yaml
from pipeline.data import DATASETS, GENERATORS
from pipeline.losses import LOSSES
from pipeline.models import HEADS
from serving.errors import UserError, run_command

BRANCHES_PATH = Path("branches.yaml")

# DVC interpolates strings, not lists, into `deps`: each list has this number of slots, the rest filled with the first.
SLOTS = 24
ARTIFACT_SLOTS = 8

TRAIN_MODULES = ("pipeline.stages.train",)
PREPARE_MODULES = ("pipeline.stages.prepare",)
EXPORT_MODULES = ("export.stages.export",)

HEADER = "# Generated from params.yaml by `make branches`; do not edit.\n"

# What every method logs, and dvc.yaml plots for all branches at once.
CURVES = ("cross_entropy", "validation_miou")

# What of params.yaml decides what branches.yaml holds.
FOLLOWS_FROM = ("prepare", "model", "methods", "matrix", "artifacts", "targets", "deploy")


def branches(params: Params, root: Path) -> dict[str, Any]:
    """The content of branches.yaml: what the DAG loops over.

    `branches`: name -> method, seed, sources, folders of its artefacts. `exports`: one entry per artefact of a branch.
    `compiles`: one entry per target of a branch that is compiled to an engine of its own.
    `dataset_sources`: files of the dataset. `curves`: quantity -> file of each branch -> column.
    """
    dataset = params.prepare.dataset
    head = [HEADS.module_of(params.model.head)]
    found: dict[str, dict[str, Any]] = {}
    for method in params.matrix.methods:
        modules = [LOSSES.module_of(params.methods[method].loss), *head, DATASETS.module_of(dataset)]
        sources = _slots(modules, TRAIN_MODULES, root)
        for seed in params.matrix.seeds:
            found[branch_name(method, seed)] = {"method": method, "seed": seed, "sources": sources}
    exports: dict[str, dict[str, Any]] = {}
    compiles: dict[str, dict[str, Any]] = {}
    for branch, settings in found.items():
        targets = params.deploy.targets_of(settings["method"], params.targets)
        artifacts = list(dict.fromkeys(target.artifact for target in targets.values()))
        compiled = [name for name, target in targets.items() if target.compiled]
        settings["artifacts"] = _padded(
            [(ARTIFACTS_DIR / branch / name).as_posix() for name in (*artifacts, *compiled)], ARTIFACT_SLOTS
        )
        for name in compiled:
            compiles[f"{branch}-{name}"] = {
                "branch": branch,
                "method": settings["method"],
                "seed": settings["seed"],
                "target": name,
                "artifact": targets[name].artifact,
            }
        for name in artifacts:
            exports[f"{branch}-{name}"] = {
                "branch": branch,
                "method": settings["method"],
                "seed": settings["seed"],
                "artifact": name,
                "sources": _slots(
                    # Each exporter is in the module of its kind; the room `export` is not to be imported here.
                    [f"export.artifacts.{params.artifacts[name].kind}", *head],
                    EXPORT_MODULES,
                    root,
                ),
            }
    painters = [GENERATORS.module_of(dataset)] if dataset in GENERATORS else []
    dataset_sources = _slots([DATASETS.module_of(dataset), *painters], PREPARE_MODULES, root)
    return {
        "branches": found,
        "exports": exports,
        "compiles": compiles,
        "dataset_sources": dataset_sources,
        "curves": {name: _curve(name, found) for name in CURVES},
    }


def _curve(quantity: str, names: Iterable[str]) -> dict[str, str]:
    """File of the curve of every branch -> its column; the branches of one plot."""
    return {(ARTIFACTS_DIR / name / "curves/plots/metrics" / f"{quantity}.tsv").as_posix(): quantity for name in names}


def fingerprint(values: Mapping[str, Any]) -> str:
    """Hash of the sections that branches.yaml follows from, as YAML gave them."""
    sections = {name: values.get(name) for name in FOLLOWS_FROM}
    return hashlib.sha256(json.dumps(sections, sort_keys=True, default=str).encode()).hexdigest()


def check_fresh() -> None:
    """Raise UserError when params.yaml has changed since branches.yaml was written. Quick: it reads two files.

    The stage `device` asks this at every `dvc repro`; `make lint` compares the whole content (`check_branches`).
    """
    recorded = read_yaml(BRANCHES_PATH).get("params_sha256")
    if recorded != fingerprint(read_yaml(PARAMS_PATH)):
        raise UserError(f"{BRANCHES_PATH}: does not follow from {PARAMS_PATH} any more; run `make branches`")


def _slots(modules: Sequence[str], common: Sequence[str], root: Path) -> list[str]:
    """Files of `modules` that the modules `common` to every branch do not use anyway, filled up to the slots."""
    paths = closure(modules, root) - closure(common, root) or closure(modules[:1], root)
    names = sorted(path.as_posix() for path in paths)
    return _padded(names, SLOTS)


def _padded(names: list[str], slots: int) -> list[str]:
    """`names` filled up with the first."""
    if len(names) > slots:
        raise UserError(f"{len(names)} entries for {slots} slots, {names[0]} first: raise the number in {__file__}")
    return names + names[:1] * (slots - len(names))


class _NoAliases(yaml.SafeDumper):
    """Branches of one method share a list of sources; written out, each stands for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def rendered(params: Params, root: Path = Path()) -> str:
    """branches.yaml as text, for the params.yaml in `root`."""
    content = branches(params, root) | {"params_sha256": fingerprint(read_yaml(root / PARAMS_PATH))}
    return HEADER + yaml.dump(content, Dumper=_NoAliases, sort_keys=True, default_flow_style=None, width=120)


def check_branches(params: Params) -> None:
    """Raise UserError when branches.yaml does not follow from params.yaml and the sources."""
    current = BRANCHES_PATH.read_text(encoding="utf-8") if BRANCHES_PATH.exists() else None
    if current != rendered(params):
        raise UserError(f"{BRANCHES_PATH}: does not follow from {PARAMS_PATH} any more; run `make branches`")


def main() -> int:
    """Write branches.yaml, or check it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.branches", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="refuse a stale file instead of writing it")
    arguments = parser.parse_args()
    params = load_params()
    if arguments.check:
        check_branches(params)
        return 0
    text = rendered(params)
    if not BRANCHES_PATH.exists() or BRANCHES_PATH.read_text(encoding="utf-8") != text:
        with atomic_path(BRANCHES_PATH) as temporary:
            temporary.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {BRANCHES_PATH}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
