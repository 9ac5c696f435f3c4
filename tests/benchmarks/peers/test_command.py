"""What the command refuses, and what it makes of rounds; the peers themselves are not installed for the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import __main__ as command
from benchmarks.peers import environments
from serving.contract.errors import UserError


def started(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    command.main()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parts", "speed"], "--parts speed: no such one"),
        (["--tools", "ultralitics"], "did you mean 'ultralytics'"),
        (["--rounds", "0"], "--rounds"),
        ([], r"model\.onnx: no such file; name a branch"),
    ],
)
def test_what_is_wrong_is_refused_in_words(words, message, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=message):
        started(monkeypatch, str(tmp_path), *words)


def test_without_the_environments_it_says_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`make peers` makes it"):
        started(monkeypatch, str(tmp_path), "--parts", "size")


def test_a_program_that_fails_says_its_last_line():
    with pytest.raises(UserError, match=r"failed \(1\): ValueError: no mask"):
        environments.run([sys.executable, "-c", "raise ValueError('no mask')"])


def test_a_program_is_measured():
    done = environments.run([sys.executable, "-c", "print('{\"images_per_second\": 4.5}')"])
    assert done.answer() == {"images_per_second": 4.5}
    assert done.seconds > 0 and 1 < done.resident_mb < 1000


def test_ours_is_small_and_counted_whole():
    assert 50 < environments.ours_mb() < 500


@pytest.mark.parametrize(("wrong", "refused"), [(0, False), (1, False), (3, True)])
def test_masks_that_differ_are_refused(wrong, refused, tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder, pixels in ((theirs, 0), (ours, wrong)):
        folder.mkdir()
        mask = np.zeros((40, 50), np.uint8)
        mask.flat[:pixels] = 1
        Image.fromarray(mask).save(folder / "0.png")
    if refused:
        with pytest.raises(UserError, match=r"differ in 0\.15%"):
            command._require_same("tool", theirs, ours)
    else:
        command._require_same("tool", theirs, ours)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"), [(0, 0, r"100\.00%"), (1, 2, "1 masks and ours 2"), (2, 1, "2 masks")]
)
def test_masks_that_are_missing_are_no_agreement(theirs, ours, message, tmp_path):
    for folder, count in (("theirs", theirs), ("ours", ours)):
        (tmp_path / folder).mkdir()
        for index in range(count):
            Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / folder / f"{index}.png")
    with pytest.raises(UserError, match=message):
        command._require_same("tool", tmp_path / "theirs", tmp_path / "ours")


def test_a_ratio_is_the_median_of_the_rounds():
    assert command._ratio([2.0, 6.0, 3.0], [1.0, 2.0, 2.0]) == {"median": 2.0, "low": 1.5, "high": 3.0}


def test_every_tool_has_a_program_and_pinned_requirements():
    folder = Path(command.__file__).parent
    for tool, (program, distribution) in command.TOOLS.items():
        assert (folder / "programs" / f"{program}.py").is_file()
        pinned = (folder / "requirements" / f"{tool}.txt").read_text().replace("_", "-").splitlines()
        assert any(line.startswith(f"{distribution}==") for line in pinned), tool
