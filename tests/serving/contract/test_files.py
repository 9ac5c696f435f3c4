"""Whole files or nothing, and one line where a file cannot be written."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.contract import files
from serving.contract.errors import UserError
from serving.contract.files import (
    atomic_dir,
    atomic_path,
    is_full,
    read_json,
    require_writable,
    why_no_file,
    write_atomically,
)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def old_folder(tmp_path):
    """A folder of three files."""
    (tmp_path / "a").mkdir()
    for name in "xyz":
        (tmp_path / "a" / name).write_bytes(b"old")
    return tmp_path / "a"


def test_a_folder_replaces_another_whole(old_folder):
    with atomic_dir(old_folder) as temporary:
        (temporary / "x").write_bytes(b"new")
    assert contents(old_folder.parent) == {"a/x": b"new"}


def test_an_interruption_while_the_old_folder_is_deleted_leaves_the_new_one(old_folder, monkeypatch):
    def interrupted(path, **_):
        if path.exists():
            next(iter(path.iterdir())).unlink()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_dir(old_folder) as temporary:
        (temporary / "x").write_bytes(b"new")
        monkeypatch.setattr("shutil.rmtree", interrupted)
    assert contents(old_folder) == {"x": b"new"}


def test_the_old_folder_is_put_back_where_the_new_one_cannot_take_its_place(old_folder, monkeypatch):
    replace = Path.replace

    def fails_once(self, target):
        if target == old_folder:
            monkeypatch.undo()
            raise OSError(errno.EACCES, "Permission denied")
        return replace(self, target)

    with pytest.raises(UserError, match="a: cannot be written: Permission denied"), atomic_dir(old_folder) as temporary:
        (temporary / "x").write_bytes(b"new")
        monkeypatch.setattr(Path, "replace", fails_once)
    assert contents(old_folder.parent) == dict.fromkeys(["a/x", "a/y", "a/z"], b"old")


def test_an_old_folder_that_cannot_be_deleted_is_named(old_folder, monkeypatch):
    def fails(path, **_):
        if path.exists():
            raise OSError(errno.EACCES, "Permission denied")

    with (
        pytest.raises(UserError, match=r"/\.a\..*: cannot be deleted: Permission denied; it was .*/a, which is new"),
        atomic_dir(old_folder) as temporary,
    ):
        (temporary / "x").write_bytes(b"new")
        monkeypatch.setattr("shutil.rmtree", fails)
    assert contents(old_folder) == {"x": b"new"}


WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
from serving.contract.files import atomic_dir
with atomic_dir(Path(sys.argv[1])) as temporary:
    (temporary / "x").write_bytes(b"half")
    print(temporary.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing the folder `a`, and the name of what it writes to."""
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


@pytest.mark.skipif(os.name == "nt", reason="there are no locks on folders")
def test_what_a_killed_process_left_is_cleared_by_the_next_and_what_lives_is_not(tmp_path, writer):
    process, name = writer
    (tmp_path / ".a.mine").mkdir()
    with atomic_dir(tmp_path / "a") as temporary:
        (temporary / "x").write_bytes(b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.mine", name}
    process.kill()
    process.wait()
    assert contents(tmp_path) == {"a/x": b"new", f"{name}/x": b"half"}
    with atomic_dir(tmp_path / "a") as temporary:
        assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.mine", temporary.name}
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".a.mine"}


def test_an_old_folder_moved_aside_by_a_killed_process_stays_until_there_is_a_new_one(old_folder):
    old_folder.rename(old_folder.with_name(".a.01234567.old"))
    with pytest.raises(RuntimeError), atomic_dir(old_folder):
        raise RuntimeError
    assert contents(old_folder.parent) == dict.fromkeys([f".a.01234567.old/{name}" for name in "xyz"], b"old")
    with atomic_dir(old_folder) as temporary:
        (temporary / "x").write_bytes(b"new")
    assert contents(old_folder.parent) == {"a/x": b"new"}


def test_a_folder_that_another_process_cleared_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, cleared = files._lock, []

    def is_late(folder, *, wait=False):
        if wait and not cleared:
            cleared.append(folder)
            folder.rmdir()
        return lock(folder, wait=wait)

    monkeypatch.setattr(files, "_lock", is_late)
    with atomic_dir(tmp_path / "a") as temporary:
        (temporary / "x").write_bytes(b"new")
    assert cleared and contents(tmp_path) == {"a/x": b"new"}


def test_where_no_folder_can_be_locked_it_is_written_and_nothing_cleared(old_folder, monkeypatch):
    (old_folder.parent / ".a.01234567").mkdir()
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with atomic_dir(old_folder) as temporary:
        (temporary / "x").write_bytes(b"new")
    assert contents(old_folder) == {"x": b"new"} and (old_folder.parent / ".a.01234567").is_dir()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_folder_is_not_replaced_by_one(old_folder, kind):
    other = old_folder.parent / kind
    other.touch() if kind == "file" else other.symlink_to(old_folder)
    with pytest.raises(UserError, match=f"{kind}: cannot be written: "), atomic_dir(other):
        pass
    assert len(contents(old_folder)) == 3


@pytest.mark.skipif(os.name == "nt", reason="there is no umask")
@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
def test_who_may_read_what_is_written_the_umask_says(tmp_path, umask, file, folder):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.txt", b"new")
        with atomic_dir(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == file
    assert (tmp_path / "folder").stat().st_mode & 0o777 == folder


def test_a_folder_that_files_can_go_to_is_made_and_left_empty(tmp_path):
    require_writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


@pytest.mark.parametrize("name", ["file/inside", "file"])
def test_a_folder_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=rf"{name}: cannot be written: ") as caught:
        require_writable(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_want_of_room_is_told_from_other_failures(tmp_path):
    assert is_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert not is_full(OSError(errno.ENAMETOOLONG, "")) and not is_full(UserError("x"))
    with pytest.raises(UserError) as caught:
        write_atomically(tmp_path / ("n" * 300), b"")
    assert not is_full(caught.value) and "File name too long" in str(caught.value)
    with pytest.raises(UserError) as caught, atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert is_full(caught.value)


def test_why_there_is_no_file_is_said_whatever_the_reason(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, why in {
        "a": None,
        "gone": "no such file",
        "a/inside": "no such file",
        ".": "is a folder; name the engine file in it",
        "pipe": "is no file",
        "n" * 300: "cannot be read: File name too long",
        "nul\0": "cannot be read: embedded null byte",
    }.items():
        assert why_no_file(tmp_path / name) == why

    def forbidden(self, **_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbidden)
    assert why_no_file(tmp_path / "a") == "cannot be read: Permission denied"


def test_a_folder_in_place_of_json_is_said(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read: Is a directory"):
        read_json(tmp_path, made_by="report")
