"""All files below a folder, through links, in one order wherever they lie."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from serving.images.listing import LeftOut

Identity = tuple[int, int]


@dataclass
class Walk:
    """What lies below a folder.

    Attributes:
        files: places below it, with `/`, sorted.
        left_out: what is no file of anybody's: hidden ones, links that lead nowhere or back.
    """

    files: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def walk(folder: Path) -> Walk:
    """List every file below a folder; an absent folder has none. Two names of one file are two files."""
    found = Walk()
    stack: list[tuple[str, str, tuple[Identity, ...]]] = [(os.fspath(folder), "", ())]
    while stack:
        path, place, above = stack.pop()
        try:
            status = Path(path).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                found.left_out.append(LeftOut(path, "a link back to a folder that it lies in"))
                continue
            with os.scandir(path) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            if place:
                found.left_out.append(LeftOut(path, f"a folder that cannot be opened: {error.strerror or error}"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                found.left_out.append(LeftOut(entry.path, "hidden"))
            elif _is(entry, folder=True):
                stack.append((entry.path, f"{place}{entry.name}/", (*above, here)))
            elif _is(entry, folder=False):
                found.files.append(f"{place}{entry.name}")
            else:
                found.left_out.append(LeftOut(entry.path, "a link that leads nowhere, or no file"))
    found.files.sort()
    return found


def _is(entry: os.DirEntry[str], *, folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link that leads back to itself
        return False
