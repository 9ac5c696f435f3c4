"""`python -m pipeline.branches`: write branches.yaml, what dvc.yaml loops over, from params.yaml.

DVC can loop over maps but not resolve registry names. This writes, per branch (a method with a seed), the source files
that its registry names resolve to, so that editing one loss retrains the methods that use it and nothing else. The file
is committed; `--check` (in `make lint` and in the stage `device`) refuses a stale one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from pipeline.artifacts import atomic_path, branch_name
from pipeline.closure import closure
from pipeline.config.params import PARAMS_PATH, Params, load_params
from pipeline.data import DATASETS
from pipeline.losses import LOSSES
from pipeline.models import HEADS
from serving.errors import UserError, run_command

BRANCHES_PATH = Path("branches.yaml")

# DVC interpolates strings, not lists, into `deps`: each list has this number of slots, the rest filled with the first.
SLOTS = 12

TRAIN_MODULES = ("pipeline.stages.train",)
PREPARE_MODULES = ("pipeline.stages.prepare",)

HEADER = "# Generated from params.yaml by `make branches`; do not edit.\n"


def branches(params: Params, root: Path) -> dict[str, Any]:
    """The content of branches.yaml: what the DAG loops over.

    `branches`: name -> method, seed, sources. `exports`: branch and artifact -> the same with the artifact.
    `dataset_sources`: files of the dataset.
    """
    dataset = [DATASETS.module_of(params.prepare.dataset)]
    common = closure(TRAIN_MODULES, root)
    found = {}
    for method in params.matrix.methods:
        modules = [LOSSES.module_of(params.methods[method].loss), HEADS.module_of(params.model.head), *dataset]
        sources = _slots(closure(modules, root) - common, modules[0], root)
        for seed in params.matrix.seeds:
            found[branch_name(method, seed)] = {"method": method, "seed": seed, "sources": sources}
    exports = {
        f"{branch}-{artifact}": {"branch": branch, "artifact": artifact, **settings}
        for branch, settings in found.items()
        for artifact in params.artifacts
    }
    dataset_sources = closure(dataset, root) - closure(PREPARE_MODULES, root)
    return {"branches": found, "exports": exports, "dataset_sources": _slots(dataset_sources, dataset[0], root)}


def _slots(paths: Iterable[Path], module: str, root: Path) -> list[str]:
    names = sorted(path.as_posix() for path in paths) or [sorted(closure([module], root))[0].as_posix()]
    assert len(names) <= SLOTS, f"{len(names)} source files for {module}: raise SLOTS and the slots in dvc.yaml"
    return names + names[:1] * (SLOTS - len(names))


class _NoAliases(yaml.SafeDumper):
    """Branches of one method share a list of sources; written out, each stands for itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def rendered(params: Params, root: Path = Path()) -> str:
    """branches.yaml as text."""
    return HEADER + yaml.dump(branches(params, root), Dumper=_NoAliases, sort_keys=True)


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
