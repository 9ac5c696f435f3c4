"""Whole files or nothing: atomic writes, JSON and content hashes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract.errors import UserError

_OLD = ".old"  # ends the name of a folder that was moved aside
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not.

    A reader sees the old file or the new one, never a part of it. The folder is made when missing.

    Raises:
        UserError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, path.suffix[:20])
        temporary.touch(exist_ok=False)  # not by mkstemp, whose files are private: who may read it the umask says
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends well and vanishes when it does not.

    The old folder is moved aside first and deleted at the end, so that whatever ends the process between leaves one of
    the two whole. What a process that was killed left beside `path` is deleted: its unfinished folder at once, the old
    one that it had moved aside when there is a new one. A folder whose process lives is locked, and left alone.

    Raises:
        UserError: the folder cannot be written, or the old one, moved aside, cannot be deleted.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        temporary, lock = _locked_beside(path)
        try:
            yield temporary
            _exchange(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            _unlock(lock)
        _clear(path, _OLD)
    except OSError as error:
        raise _not_written(path, error) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        UserError: the folder or the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Write `value` as `json_bytes` gives it, atomically."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """Indented JSON with sorted keys. Dataclasses become mappings, NaN becomes null."""
    return (json.dumps(_plain(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_json(path: Path, *, made_by: str) -> Any:
    """Read a JSON file that the stage `made_by` writes. Raises UserError when it is missing, unreadable or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the output of `{made_by}`: run it first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected JSON as `{made_by}` writes it, got {error}") from None


def require_writable(folder: Path) -> None:
    """Make a folder, and make sure that files can be written there before work is begun whose results are to go there.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=".contrail-"):
            pass
    except OSError as error:
        raise _not_written(folder, error) from error


def is_full(error: BaseException) -> bool:
    """Whether a failed write was for want of room (or of the right to write at all): the next one will fail as well."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_ROOM


def why_no_file(path: Path) -> str | None:
    """Why there is no engine file of this name, in a few words; None where there is one.

    `Path.is_file` raises for names that are too long, and for what lies in a folder that may not be entered.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISREG(mode):
        return None
    return "is a folder; name the engine file in it" if stat.S_ISDIR(mode) else "is no file"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises:
        UserError: the file is missing or unreadable.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def _exchange(new: Path, path: Path) -> None:
    """Put a folder in the place of another, which is deleted."""
    if path.is_symlink() or not path.is_dir():
        new.replace(path)
        return
    old, lock = _beside(path, _OLD), _lock(path)
    try:
        path.replace(old)
        try:
            new.replace(path)
        except BaseException:
            if not path.exists():
                old.replace(path)
            raise
        try:
            shutil.rmtree(old)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{old}: cannot be deleted: {reason}; it was {path}, which is new") from error
    finally:
        _unlock(lock)


def _clear(path: Path, suffix: str = "") -> None:
    """Delete the folders beside `path` of processes that were killed."""
    left = re.compile(re.escape(_beginning(path)) + "[0-9a-f]{8}" + re.escape(suffix))
    try:
        with os.scandir(path.parent) as entries:
            names = [each.name for each in entries if left.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
    except OSError:  # a folder that can be written to, not read
        return
    for name in names:
        if (lock := _lock(path.with_name(name))) is not None:
            shutil.rmtree(path.with_name(name), ignore_errors=True)
            _unlock(lock)


def _locked_beside(path: Path) -> tuple[Path, int | None]:
    """A new folder beside `path`, and its lock where the file system knows any."""
    while True:
        temporary = _beside(path)
        temporary.mkdir()
        lock = _lock(temporary, wait=True)
        if temporary.exists():  # else another process was first, and took it for one that was left
            return temporary, lock
        _unlock(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """Lock a folder until `_unlock` or until the process ends, in whichever way; None where that cannot be had."""
    try:
        import fcntl

        lock = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows has no locks on folders; there nothing is cleared
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the file system has no locks
        os.close(lock)
        return None
    return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _beginning(path: Path) -> str:
    """What the names of temporary files and folders beside `path` begin with."""
    return f".{path.name[:60]}."


def _beside(path: Path, suffix: str = "") -> Path:
    """A name in the same folder that nothing has, inside the 255 bytes that most file systems allow."""
    return path.with_name(f"{_beginning(path)}{os.urandom(4).hex()}{suffix}")


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and math.isnan(value):
        return None  # JSON has no NaN; a class that occurs nowhere has no IoU
    return value
