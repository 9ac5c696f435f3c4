"""Whether the dataset's folder changed: its names, sizes and times, or its bytes, as one hash.

Light to import: this runs before everything else, every time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from serving.contract.errors import UserError

Identity = tuple[int, int]


@dataclass(frozen=True)
class Snapshot:
    """A folder at one moment.

    Attributes:
        files: how many there are.
        size_bytes: of all of them.
        sha256: of all names with sizes and times, or bytes.
    """

    files: int
    size_bytes: int
    sha256: str


def take_snapshot(root: Path, *, content: bool = False, leave_out: Collection[Path] = ()) -> Snapshot:
    """Look at every file below a folder, through links; hidden ones are left out.

    Args:
        root: the folder.
        content: read every byte, instead of trusting sizes and times of change.
        leave_out: folders and files that may lie below `root` and do not belong to it.

    Raises:
        UserError: no such folder, or one that cannot be read.
    """
    if not root.is_dir():
        copy = Path.cwd()
        copied = not root.is_absolute() and ".dvc" in copy.parts
        why = f" from {copy}, where DVC runs a queued experiment: write the whole path" if copied else ""
        raise UserError(f"{root}: no such folder{why}; prepare.root in params.yaml names the dataset's folder")
    left_out = {os.path.realpath(path) for path in leave_out}
    base = os.path.realpath(root)
    inside = any(path.startswith(base + os.sep) for path in left_out)
    digest = hashlib.sha256()
    files = size_bytes = 0
    # Folders to go: path, place below the root with a slash behind it, the folders that it lies in.
    stack: list[tuple[str, str, tuple[Identity, ...]]] = [(os.fspath(root), "", ())]
    while stack:
        path, place, above = stack.pop()
        try:
            status = Path(path).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue  # a link back to a folder that it lies in
            with os.scandir(path) as entries:
                found = sorted(entries, key=attrgetter("name"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        lines: list[str] = []
        folders: list[tuple[str, str, tuple[Identity, ...]]] = []
        for entry in found:
            name = entry.name
            if name[0] == "." or (inside and os.path.realpath(entry.path) in left_out):
                continue
            try:
                if entry.is_dir():
                    folders.append((entry.path, f"{place}{name}/", (*above, here)))
                    continue
                status = entry.stat()
            except OSError as error:  # a link that leads nowhere, or a file that has just vanished
                lines.append(f"{name}\0{error.errno}")
                continue
            files += 1
            size_bytes += status.st_size
            if content:
                lines.append(f"{name}\0{_file_sha256(entry.path)}")
            else:
                lines.append(f"{name}\0{status.st_size}\0{status.st_mtime_ns}")
        if lines:
            digest.update(f"{place}\0{len(lines)}\n".encode("utf-8", "surrogateescape"))
            digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
        stack.extend(reversed(folders))
    return Snapshot(files, size_bytes, digest.hexdigest())


def _file_sha256(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
