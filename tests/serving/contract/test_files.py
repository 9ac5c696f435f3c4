"""Whole files or nothing, and one line where a file cannot be written."""

import errno
import os

import pytest

from serving.contract.errors import UserError
from serving.contract.files import atomic_dir, atomic_path, is_full, require_writable, write_atomically


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


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
