"""A scratch copy of the project, and one in which the whole pipeline has run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.project import CAMVID, Project, toy_project


@pytest.fixture(scope="session")
def unrun_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project at toy size in which nothing has run. Not to be changed: see `project`."""
    return toy_project(tmp_path_factory.mktemp("documents"))


@pytest.fixture(scope="session")
def run_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project at toy size after `make repro`. Not to be changed: see `project_after_repro`."""
    project = toy_project(tmp_path_factory.mktemp("documents_after_repro"))
    done = project.run("make -o .venv/.installed repro")
    assert done.returncode == 0, done.stdout
    return project


def _copier(project: Project, folder: Path) -> Iterator[Project]:
    copied = folder / project.root.name
    shutil.copytree(project.root, copied, symlinks=True)
    shutil.copytree(project.root.parent / CAMVID, folder / CAMVID)
    yield Project(copied)
    shutil.rmtree(copied)


@pytest.fixture
def project(unrun_project: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of `unrun_project` to change."""
    yield from _copier(unrun_project, tmp_path)


@pytest.fixture
def project_after_repro(run_project: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of `run_project` to change."""
    yield from _copier(run_project, tmp_path)
