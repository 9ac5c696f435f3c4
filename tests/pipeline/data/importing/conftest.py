"""An export to fill, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.data.importing.importer import Imported, Importer, Run


@pytest.fixture(scope="session")
def importer() -> Iterator[Importer]:
    importer = Importer()
    yield importer
    importer.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    return folder


@pytest.fixture
def run(importer: Importer, source: Path, tmp_path: Path) -> Run:
    def do(*options: str) -> Imported:
        done = importer.call(str(source), "--output", str(tmp_path / "data"), *options)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return Imported(tmp_path / "data", done.stdout)

    return do


@pytest.fixture
def refused(importer: Importer, source: Path, tmp_path: Path) -> Callable[..., str]:
    def do(*options: str) -> str:
        done = importer.call(str(source), "--output", str(tmp_path / "data"), *options)
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr and not (tmp_path / "data").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]
        return done.stderr

    return do
