"""Whole files or nothing: atomic writes, JSON and content hashes."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from serving.contract.errors import UserError

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
    the two whole.

    Raises:
        UserError: the folder cannot be written, or the old one, moved aside, cannot be deleted.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.mkdir()
        try:
            yield temporary
            _exchange(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
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
    old = _beside(path)
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
        raise UserError(f"{old}: cannot be deleted: {error.strerror or error}; it was {path}, which is new") from error


def _beside(path: Path, suffix: str = "") -> Path:
    """A name in the same folder that nothing has, inside the 255 bytes that most file systems allow."""
    return path.with_name(f".{path.name[:60]}.{os.urandom(4).hex()}{suffix}")


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
