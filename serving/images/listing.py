"""What files and folders stand for: the images to read, and what is left out with the reason.

Paths are plain texts here: with a hundred thousand names, `Path` objects are what takes the time.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.contract.errors import UserError, shown
from serving.images.formats import HEAD_BYTES, SUFFIXES, is_surely_image, is_video, other_picture
from serving.images.image_io import open_file

# A folder reached in more ways than this through links is not walked again: links to and fro would have no end.
MAX_WAYS = 16
# Text and arrays: too many of them lie beside images to look into each.
_NO_IMAGES = frozenset(
    {".txt", ".json", ".xml", ".csv", ".md", ".yaml", ".yml", ".html", ".log", ".npy", ".npz", ".py"}
)

Identity = tuple[int, int]


class ListedImage(NamedTuple):
    """An image to read.

    Attributes:
        path: the file, as it was reached.
        relative: its place below the folder that was named, or its bare name where the file itself was.
        folder: the folder that holds it, without links.
        target: where a link leads in the end; None for a file.
        video: whether it is a video, whose frames are the images.
    """

    path: str
    relative: str
    folder: str
    target: str | None = None
    video: bool = False


class LeftOut(NamedTuple):
    """Something in a folder that is not read.

    Attributes:
        path: what.
        reason: why, in a few words.
    """

    path: str
    reason: str


@dataclass
class Listing:
    """What was found.

    Attributes:
        images: in the order of what was named, folders sorted by name.
        left_out: everything else in the folders.
    """

    images: list[ListedImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def list_images(paths: Iterable[str], *, results: str | None = None) -> Listing:
    """Find the images that `paths` stand for: files as named (whatever they are), folders with all images below them.

    Links are followed, and every name of a file counts: two names give two results. In folders, the ending of a name
    tells an image; where it does not, the first bytes do. Hidden files are left out, and videos: they are read where
    they are named themselves.

    Args:
        paths: files and folders.
        results: the folder that results go to, left out wherever it lies.

    Raises:
        UserError: a folder that cannot be opened, or without any image; all such folders at once.
    """
    listing = Listing()
    walk = _Walk(listing, _identity(results) if results is not None else None)
    problems: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            walk.file(path)
            continue
        images, left_out = len(listing.images), len(listing.left_out)
        seen = walk.repeated
        try:
            walk.folder(path)
        except OSError as error:
            problems.append(f"{path}: cannot be opened: {error.strerror or error}")
            continue
        if len(listing.images) == images and walk.repeated == seen:
            why = "; ".join(summary(listing.left_out[left_out:])) or f"looked for {' '.join(sorted(SUFFIXES))}"
            problems.append(f"{path}: no image in this folder ({why})")
    if problems:
        raise UserError("\n".join(problems))
    return listing


def summary(left_out: Iterable[LeftOut], *, names: int = 3) -> list[str]:
    """One line per reason: how many, the reason, and the first few names."""
    groups: dict[str, list[str]] = {}
    for path, reason in left_out:
        groups.setdefault(reason, []).append(path)
    return [
        f"{len(paths)} left out, {reason}: {', '.join(map(shown, paths[:names]))}"
        + (f" and {len(paths) - names} more" if len(paths) > names else "")
        for reason, paths in sorted(groups.items(), key=lambda group: -len(group[1]))
    ]


class _Walk:
    """One pass over all that was named."""

    def __init__(self, listing: Listing, results: Identity | None) -> None:
        self.repeated = 0
        self._listing, self._results = listing, results
        self._taken: set[str] = set()
        self._ways: Counter[Identity] = Counter()

    def file(self, path: str) -> None:
        """Take a file that was named itself, whatever it is."""
        absolute = _absolute(path)
        folder, name = os.path.split(absolute)
        target = os.path.realpath(path) if os.path.islink(path) else None
        self._take(absolute, ListedImage(path, name, os.path.realpath(folder), target, _is_video(path)))

    def folder(self, root: str) -> None:
        """Take all images below a folder. Raises OSError where the folder itself cannot be opened."""
        # Folders to go: path, place below the root with a separator behind it, the folders that it lies in.
        stack: list[tuple[str, str, str, tuple[Identity, ...]]] = [(root, "", _absolute(root), ())]
        while stack:
            path, place, absolute, above = stack.pop()
            here = _identity(path)
            reason = self._refusal(here, above)
            if reason is not None:
                self._leave(path, reason)
                continue
            try:
                with os.scandir(path) as entries:
                    found = sorted(entries, key=_name_of)
            except OSError as error:
                if not above:
                    raise
                self._leave(path, f"a folder that cannot be opened: {error.strerror or error}")
                continue
            inside = (*above, here or (0, 0))
            folders = self._files(found, place, absolute + os.sep, os.path.realpath(path))
            stack.extend(
                (entry.path, f"{place}{entry.name}{os.sep}", f"{absolute}{os.sep}{entry.name}", inside)
                for entry in reversed(folders)
            )

    def _files(self, found: Iterable[os.DirEntry[str]], place: str, prefix: str, folder: str) -> list[os.DirEntry[str]]:
        """Take the images of a folder; returns the folders in it."""
        folders: list[os.DirEntry[str]] = []
        for entry in found:
            name, target = entry.name, None
            if name[0] == ".":
                self._leave(entry.path, "hidden")
                continue
            if not entry.is_file(follow_symlinks=False):
                if _is_dir(entry):
                    folders.append(entry)
                    continue
                reason = _why_no_file(entry)
                if reason is not None:
                    self._leave(entry.path, reason)
                    continue
                target = os.path.realpath(entry.path)
            suffix = name[dot:].lower() if (dot := name.rfind(".")) > 0 else ""
            if suffix not in SUFFIXES:
                reason = _why_no_image(entry.path, suffix)
                if reason is not None:
                    self._leave(entry.path, reason)
                    continue
            self._take(prefix + name, ListedImage(entry.path, place + name, folder, target))
        return folders

    def _refusal(self, here: Identity | None, above: tuple[Identity, ...]) -> str | None:
        """Why a folder is not walked; None where it is."""
        if here is None:
            return None
        if above and here == self._results:
            return "the folder of the results"
        if here in above:
            return "a link back to a folder that it lies in"
        self._ways[here] += 1
        return f"a folder reached in more than {MAX_WAYS} ways" if self._ways[here] > MAX_WAYS else None

    def _take(self, absolute: str, image: ListedImage) -> None:
        """Note an image, unless the same name was reached before."""
        if absolute in self._taken:
            self.repeated += 1
            return
        self._taken.add(absolute)
        self._listing.images.append(image)

    def _leave(self, path: str, reason: str) -> None:
        self._listing.left_out.append(LeftOut(path, reason))


def _why_no_file(entry: os.DirEntry[str]) -> str | None:
    """Why what is neither a file nor a folder is left out; None for a link to a file."""
    try:
        status = os.stat(entry.path)  # of what a link leads to
    except OSError as error:
        return "a link that leads nowhere" if entry.is_symlink() else str(error.strerror or error)
    return None if stat.S_ISREG(status.st_mode) else "a pipe, a socket or a device"


def _why_no_image(path: str, suffix: str) -> str | None:
    """Why a file whose name does not end as an image's is left out; None where its first bytes are an image's."""
    if suffix in _NO_IMAGES:
        return f"no image ({suffix})"
    try:
        with open_file(path) as file:
            head = file.read(HEAD_BYTES)
    except (UserError, OSError):
        return f"cannot be read ({suffix or 'no ending'})"
    if is_video(head, suffix):
        return "a video: name it itself, or by a pattern"
    other = other_picture(head, suffix)
    if other is not None:
        return f"{other} is not read"
    return None if is_surely_image(head) else f"no image ({suffix or 'no ending'})"


def _is_video(path: str) -> bool:
    """Whether a file that was named itself is a video. The ending of an image's name is taken at its word."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return False
    try:
        with open_file(path) as file:
            return is_video(file.read(HEAD_BYTES), suffix)
    except (UserError, OSError):
        return False


def _name_of(entry: os.DirEntry[str]) -> str:
    return entry.name


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _absolute(path: str) -> str:
    """The name of a file from the root, links kept: `..` after a link is not what the text before it says."""
    folder, name = os.path.split(path)
    if os.pardir in path.split(os.sep):
        return os.path.join(os.path.realpath(folder), name) if name != os.pardir else os.path.realpath(path)
    return os.path.abspath(path)
