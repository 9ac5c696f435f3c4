"""What `make repro` asks first."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.commands import validate
from pipeline.params import read_yaml
from serving.contract.errors import UserError


@pytest.fixture
def values(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["validate"])
    return read_yaml(repository / "params.yaml")


def run(values: dict[str, Any]) -> int:
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return validate.main()


def test_the_committed_file_passes_in_silence(values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(values) == 0
    assert capsys.readouterr().out == ""


def test_the_old_form_says_in_one_line_what_to_write(values: dict[str, Any]) -> None:
    del values["branches"], values["exports"], values["compiles"]
    values["matrix"] = {"methods": ["cross_entropy", "pixel_contrast"], "seeds": [0, 3]}
    with pytest.raises(UserError) as caught:
        run(values)
    (line,) = [line for line in str(caught.value).splitlines() if "matrix" in line]
    assert "replace this section by `branches: {cross_entropy-s0: {method: cross_entropy, loss: cross_entropy" in line
    assert "pixel_contrast-s3: {method: pixel_contrast, loss: pixel_contrast, seed: 3}" in line
    # What the line says is what must be written.
    del values["matrix"]
    values |= yaml.safe_load(line.partition("`")[2].partition("`")[0])
    with pytest.raises(UserError) as caught:
        run(values)
    rows = [line.partition("`")[2].strip("`") for line in str(caught.value).splitlines() if "needs the line" in line]
    for row in rows:
        section = "compiles" if "target:" in row else "exports"
        values.setdefault(section, {}).update(yaml.safe_load(row))
    assert run(values) == 0


def test_no_branch_at_all_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="branches: expected at least one"):
        run(values | {"branches": {}, "exports": {}, "compiles": {}})


def stages(repository: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(repository / "dvc.yaml")["stages"]
    return found


class TestParametersThatDvcAsksFor:
    @pytest.fixture(autouse=True)
    def dvc_yaml(self, repository: Path, values: dict[str, Any]) -> None:
        Path("dvc.yaml").write_text((repository / "dvc.yaml").read_text())

    def lines(self, values: dict[str, Any]) -> dict[str, Any]:
        """What is to be pasted."""
        with pytest.raises(UserError) as caught:
            run(values)
        first, _, rest = str(caught.value).partition("\n")
        assert "which dvc.yaml asks for; DVC knows no defaults. Add" in first
        pasted: dict[str, Any] = yaml.safe_load(rest)
        return pasted

    def test_the_committed_file_has_all(self, values: dict[str, Any]) -> None:
        assert run(values) == 0

    @pytest.mark.parametrize(
        "section", ["profile", "prepare", "model", "train", "evaluate", "verify", "benchmark", "gate"]
    )
    def test_a_missing_section_is_named_and_what_is_pasted_mends_it(self, values: dict[str, Any], section: str) -> None:
        del values[section]
        pasted = self.lines(values)
        assert list(pasted) == [section]
        assert run(values | pasted) == 0

    def test_keys_of_a_section_that_is_there(self, values: dict[str, Any]) -> None:
        values["evaluate"] = {"split": "val"}
        values["model"] = {"backbone": "tf_efficientnet_lite0"}
        pasted = self.lines(values)
        assert pasted["evaluate"] == {"resize": None} and pasted["model"] == {"head": "light"}
        for section, keys in pasted.items():
            values[section] = values[section] | keys
        assert run(values) == 0

    def test_all_that_is_missing_at_once(self, values: dict[str, Any]) -> None:
        for section in ("verify", "benchmark", "profile"):
            del values[section]
        pasted = self.lines(values)
        assert pasted == {"profile": "quick", "benchmark": {}, "verify": {}}


class TestPlace:
    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / ".dvc").mkdir()
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
        return tmp_path

    def test_a_project_without_git_is_told_how_to_do_without(self, project: Path) -> None:
        (line,) = validate.problems_of_place(project)
        assert "git init" in line and "dvc config core.no_scm true" in line
        (project / ".dvc/config").write_text("[core]\n    no_scm = true\n")
        assert validate.problems_of_place(project) == []

    @pytest.mark.parametrize("kind", ["folder", "file", "above"])
    def test_a_repository_or_a_worktree_will_do(self, project: Path, kind: str) -> None:
        if kind == "file":
            (project / ".git").write_text("gitdir: elsewhere")
        else:
            ((project.parent if kind == "above" else project) / ".git").mkdir()
        try:
            assert validate.problems_of_place(project) == []
        finally:
            if kind == "above":
                (project.parent / ".git").rmdir()

    def test_folders_that_cannot_be_written(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (project / ".git").mkdir()
        (project / "locked").mkdir()
        monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "locked/deep/site"))
        monkeypatch.setattr("os.access", lambda path, mode: "locked" not in str(path))
        (line,) = validate.problems_of_place(project)
        assert "locked/deep/site: DVC cannot write there" in line and "export DVC_SITE_CACHE_DIR=" in line
        monkeypatch.delenv("DVC_SITE_CACHE_DIR")
        monkeypatch.setattr("os.access", lambda path, mode: False)
        read_only, locks = validate.problems_of_place(project)
        assert "the project cannot be written to" in read_only and locks.startswith("/var/tmp/dvc: ")

    def test_the_command_says_it_where_there_is_a_project(self, values: dict[str, Any], project: Path) -> None:
        with pytest.raises(UserError, match="no git repository"):
            run(values)
