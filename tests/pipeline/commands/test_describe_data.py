"""`describe_data`: what it writes, where it draws, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.commands import describe_data
from serving.contract.errors import UserError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        label = np.zeros((16, 24), np.uint8)
        label[4 : 8 + index, 5:9] = 255
        for folder, picture, ending in (("images", noise, "jpg"), ("masks", label, "png")):
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / "own" / folder / f"{index}.{ending}")
    return tmp_path / "own"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["describe_data", *arguments])
        return describe_data.main()

    return run


def test_the_section_can_be_pasted_and_the_sheet_looked_at(own: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(own.rglob("*"))
    assert run(str(own)) == 0
    output = capsys.readouterr().out
    section = output[output.index("prepare:\n") : output.index("\ndescribe-data.png")]
    assert yaml.safe_load(section) == {
        "prepare": {
            "dataset": "folder",
            "root": str(own),
            "options": {"label_folder": "masks", "classes": ["background 0", "object 255"]},
        }
    }
    for text in ("24x16 (4)", "JPEG, RGB, 8 bits (4)", "L (4)", "EXIF orientation: 0 images", "  object "):
        assert text in output
    with Image.open("describe-data.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape[0] > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1000
    assert sorted(own.rglob("*")) == before


def test_json_and_a_sheet_elsewhere_or_none(own: Path, run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(own), "--json", "--sheet", "deep/sheet.png") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["sheet"] == "deep/sheet.png" and (tmp_path / "deep/sheet.png").exists()
    assert content["classes"][1]["name"] == "object" and content["images"] == {"train": 3, "val": 1, "test": 0}
    assert run(str(own), "--json", "--no-sheet") == 0
    assert json.loads(capsys.readouterr().out)["sheet"] is None
    assert not (tmp_path / "describe-data.png").exists()


def test_problems_end_with_status_1(own: Path, run, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "masks/0.png").write_bytes(b"damaged")
    assert run(str(own)) == 1
    output = capsys.readouterr().out
    assert "PROBLEM, unreadable: " in output and "mend the problems first" in output


def test_bad_arguments_and_folders(run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        run(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="expected at least 1"):
        run(str(tmp_path), "--limit", "0")
