"""The change watch: every change of a name, size, time or byte gives another hash, and nothing else does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.preparing.watching import take_snapshot
from serving.contract.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("images/a.png", "images/day2/b.png", "labels/a.png", "classes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def rename(root: Path) -> None:
    (root / "labels/a.png").rename(root / "labels/b.png")


def move(root: Path) -> None:
    (root / "labels/a.png").rename(root / "images/day2/a.png")


def grow(root: Path) -> None:
    path = root / "labels/a.png"
    times = path.stat()
    path.write_bytes(b"longer than before")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def touch(root: Path) -> None:
    path = root / "images/day2/b.png"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def correct(root: Path) -> None:
    path = root / "labels/a.png"
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def add(root: Path) -> None:
    (root / "images/c.png").write_bytes(b"")


def remove(root: Path) -> None:
    (root / "classes.txt").unlink()


def link_elsewhere(root: Path) -> None:
    (root / "images/a.png").unlink()
    (root / "images/a.png").symlink_to(root / "labels/a.png")


def undecodable(root: Path) -> None:
    (root / "images/a.png").rename(root / "images" / os.fsdecode(b"caf\xe9.png"))


@pytest.mark.parametrize(
    "change", [rename, move, grow, touch, correct, add, remove, link_elsewhere, undecodable], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("content", [False, True])
def test_every_change_gives_another_hash(root: Path, change: Callable[[Path], None], content: bool) -> None:
    before = take_snapshot(root, content=content)
    assert take_snapshot(root, content=content) == before
    change(root)
    changed = take_snapshot(root, content=content) != before
    assert changed or (content and change is touch)  # a time alone is no change of content


def test_content_sees_what_names_sizes_and_times_hide(root: Path) -> None:
    path = root / "labels/a.png"
    quick, strict, times = take_snapshot(root), take_snapshot(root, content=True), path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert take_snapshot(root) == quick
    assert take_snapshot(root, content=True) != strict


def test_links_are_followed_and_loops_end(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.png").write_bytes(b"c")
    (root / "images/linked").symlink_to(tmp_path / "elsewhere")
    (root / "images/day2/up").symlink_to(root)
    (root / "images/gone.png").symlink_to("nowhere.png")
    before = take_snapshot(root)
    assert before.files == 5
    (tmp_path / "elsewhere/c.png").write_bytes(b"cc")
    assert take_snapshot(root) != before


def test_hidden_files_and_what_the_run_itself_writes_do_not_count(root: Path) -> None:
    before = take_snapshot(root, leave_out=(root / "reports", root / "data/prepared"))
    (root / ".DS_Store").write_bytes(b"x")
    (root / "images/.thumbnails").mkdir()
    (root / "images/.thumbnails/a.png").write_bytes(b"x")
    (root / "reports").mkdir()
    (root / "reports/report.json").write_bytes(b"{}")
    assert take_snapshot(root, leave_out=(root / "reports", root / "data/prepared")) == before
    assert take_snapshot(root) != before


def test_the_hash_does_not_depend_on_where_the_folder_lies(root: Path, tmp_path: Path) -> None:
    before = take_snapshot(root)
    (tmp_path / "link").symlink_to(root)
    assert take_snapshot(tmp_path / "link") == before
    root.rename(tmp_path / "moved")
    assert take_snapshot(tmp_path / "moved") == before


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; prepare\.root"):
        take_snapshot(tmp_path / "nowhere")


def test_a_relative_folder_where_a_queued_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc/tmp/exps/copy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ".dvc/tmp/exps/copy")
    with pytest.raises(UserError, match=r"data/own: no such folder from .*exps/copy, where .*: write the whole path"):
        take_snapshot(Path("data/own"))


@pytest.mark.slow
def test_a_hundred_thousand_files_take_a_second(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for index in range(50_000):
            (tmp_path / folder / f"{index:06}.png").touch()
    took = []
    for _ in range(3):
        started = time.process_time()
        assert take_snapshot(tmp_path).files == 100_000
        took.append(time.process_time() - started)
    assert min(took) < 1.5  # seconds of this process: a busy machine has slower ones
