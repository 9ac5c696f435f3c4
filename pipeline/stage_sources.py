"""`python -m pipeline.stage_sources`: write into dvc.yaml the source files that each stage depends on.

A stage's files are the import closure of its module and of the sections of params.yaml that it reads. What its registry
names resolve to comes per branch from branches.yaml: the slots `${item.sources[0]}` and so on.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.artifacts import atomic_path
from pipeline.branches import SLOTS
from pipeline.closure import closure, sections_used
from pipeline.config.params import SECTIONS
from serving.errors import UserError, run_command

DVC_PATH = Path("dvc.yaml")

# Stages whose registry names differ from branch to branch, or from dataset to dataset: where their slots come from.
SLOT_SOURCES = {
    "prepare": "dataset_sources",
    "train": "item.sources",
    "strip": "item.sources",
    "export": "item.sources",
}


def stage_module(command: str) -> str:
    """The module that a stage's `cmd` runs."""
    found = re.match(r"python -m (\S+)", command)
    assert found, f"expected `python -m MODULE ...`, got {command!r}"
    return found[1]


def stage_files(module: str, root: Path) -> list[str]:
    """Source files of a stage, sorted: the closure of its module and of the sections of params.yaml that it reads."""
    sections = [SECTIONS.module_of(name) for name in sections_used(module, root) if name in SECTIONS]
    return sorted(path.as_posix() for path in closure([module, *sections], root))


def is_source(dependency: object) -> bool:
    """Whether an entry of `deps` is one that this command writes."""
    return isinstance(dependency, str) and (dependency.endswith(".py") or "sources[" in dependency)


def rendered(text: str, root: Path = Path()) -> str:
    """dvc.yaml with every stage's source files brought up to date; comments and the rest stay as they are."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: Any = yaml.load(text)
    for name, stage in content["stages"].items():
        stage = stage.get("do", stage)
        kept = [dependency for dependency in stage.get("deps", []) if not is_source(dependency)]
        slots = [f"${{{SLOT_SOURCES[name]}[{slot}]}}" for slot in range(SLOTS)] if name in SLOT_SOURCES else []
        if name == "device":
            continue  # always runs; its dependencies would be without effect
        stage["deps"] = kept + stage_files(stage_module(stage["cmd"]), root) + slots
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()


def main() -> int:
    """Write dvc.yaml, or check it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.stage_sources", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="refuse a stale file instead of writing it")
    arguments = parser.parse_args()
    text = DVC_PATH.read_text(encoding="utf-8")
    current = rendered(text)
    if arguments.check and current != text:
        raise UserError(f"{DVC_PATH}: its source files are out of date; run `python -m pipeline.stage_sources`")
    if current != text:
        with atomic_path(DVC_PATH) as temporary:
            temporary.write_text(current, encoding="utf-8")
        sys.stdout.write(f"wrote {DVC_PATH}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
