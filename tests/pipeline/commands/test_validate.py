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
