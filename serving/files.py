"""Whole files or nothing: atomic writes and content hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from serving.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part of it.

    Args:
        path: the file to write; its folder is made when missing.
        content: all of its bytes.

    Raises:
        UserError: the folder or the file cannot be written.
    """
    # The name is kept inside the 255 bytes most file systems allow, whatever the length of the final one.
    temporary = path.with_name(f".{path.name[:60]}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


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
