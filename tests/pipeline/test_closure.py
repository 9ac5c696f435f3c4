"""The import closure: what a stage depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.closure import closure, sections_used


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "pipeline/__init__.py": "",
        "pipeline/a.py": "from pipeline.b import thing\nimport json\nfrom pipeline import c\n",
        "pipeline/b.py": "thing = 1\ndef late():\n    import serving.d\n",
        "pipeline/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.unused import X\n",
        "pipeline/unused.py": "X = 1\n",
        "pipeline/stage.py": "def main(params):\n    return params.train, params.model.head\n",
        "serving/__init__.py": "VERSION = 1\n",
        "serving/d.py": "import pipeline.a  # a cycle\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_follows_imports_wherever_they_stand_and_skips_type_checking(project: Path) -> None:
    found = {path.as_posix() for path in closure(["pipeline.a"], project)}
    assert found == {"pipeline/a.py", "pipeline/b.py", "pipeline/c.py", "serving/__init__.py", "serving/d.py"}


def test_empty_files_and_foreign_modules_do_not_count(project: Path) -> None:
    assert closure(["pipeline", "numpy", "pipeline.nowhere"], project) == set()


def test_sections_are_what_is_read_of_params(project: Path) -> None:
    assert sections_used("pipeline.stage", project) == {"train", "model"}


def test_training_does_not_depend_on_the_settings_of_the_gate(repository: Path) -> None:
    found = {path.as_posix() for path in closure(["pipeline.stages.train"], repository)}
    assert "pipeline/training.py" in found
    assert "pipeline/config/gate.py" not in found
    assert not any(name.startswith("export/") for name in found)
    assert "pipeline/losses/contextrast.py" not in found
