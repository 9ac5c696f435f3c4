"""docs/extending.md: every walk can be added, its settings are valid then, and its code passes the linter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.markdown import ROOT
from tests.documents.project import copy_of_tracked_files
from tests.walks.page import PAGE, Walk, walks


@pytest.mark.parametrize("title", list(walks()))
def test_a_walk_is_files_and_lines_of_registries(title: str) -> None:
    walk = walks()[title]
    assert walk.files and walk.lines
    assert all(
        any(module.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in lines for module in walk.files)
        for lines in walk.lines.values()
    )


def test_the_table_says_what_each_walk_costs() -> None:
    found = re.findall(r"^\| \[(a .+)\]\(#(.+)\) \| (\d+) \| (\d+) \| (\d+) \|$", (ROOT / PAGE).read_text(), flags=re.M)
    costs = {
        (title.lower(), title.lower().replace(" ", "-")): (
            len(walk.files),
            sum(bool(line.strip()) for text in walk.files.values() for line in text.splitlines()),
            sum(len(lines.splitlines()) for lines in walk.lines.values()),
        )
        for title, walk in walks().items()
    }
    assert {(title, anchor): tuple(map(int, counts)) for title, anchor, *counts in found} == costs


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project to which every walk was added."""
    root = copy_of_tracked_files(tmp_path_factory.mktemp("extended"))
    for walk in walks().values():
        walk.apply(root)
    return root


def run(root: Path, *command: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_params_yaml_is_valid_and_every_name_leads_to_code_once_all_are_added(extended: Path) -> None:
    run(extended, sys.executable, "-c", RESOLVE)


RESOLVE = """
from pipeline.params import load_params
load_params()
from export.artifacts import ARTIFACT_KINDS
from export.checks import CHECKS
from pipeline.data.datasets import DATASETS
from pipeline.losses import LOSSES
from pipeline.losses.supervised import SUPERVISED
from pipeline.models.heads import HEADS
from serving.engines.runtimes import RUNTIMES
for registry in (ARTIFACT_KINDS, CHECKS, DATASETS, LOSSES, SUPERVISED, HEADS, RUNTIMES):
    for name in registry:
        registry.resolve(name)
"""


def test_their_code_passes_the_linter(extended: Path) -> None:
    changed = {name for walk in walks().values() for name in (*walk.files, *(path for path, _ in walk.lines))}
    ruff = Path(sys.executable).parent / "ruff"
    run(extended, ruff, "check", "--no-cache", *sorted(changed))
    run(extended, ruff, "format", "--no-cache", "--check", *sorted(changed))


def test_a_registry_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "registry.py").write_text("OTHERS = Registry(\n    {\n    },\n)\n")
    with pytest.raises(AssertionError, match=r"registry.py has no registry HEADS"):
        Walk({}, {("registry.py", "HEADS"): "x"}, {}).apply(tmp_path)
