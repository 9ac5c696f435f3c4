"""Folders below a URI: a path, or what pyarrow has a file system for (S3, Google Cloud Storage, HDFS)."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from serving.contract.errors import UserError, shown
from serving.images.formats import SUFFIXES
from serving.images.listing import LeftOut, list_images

Result = TypeVar("Result")

_PAUSES_S = (0.5, 2.0, 8.0)  # before a file is read or written again
# What another try does not mend.
_FINAL = frozenset(
    (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
) | {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_AT_ONCE = 16  # small files that are read or deleted side by side


class Images(NamedTuple):
    """What a folder holds.

    Attributes:
        versions: name relative to the folder, with `/` -> what tells this content from another of the same name.
        left_out: what is told by its name, its first bytes or its kind to be no image.
        unreadable: name -> why it cannot be read.
    """

    versions: dict[str, str]
    left_out: list[LeftOut]
    unreadable: dict[str, str]


class Folder:
    """Files below a URI.

    Args:
        uri: a path, or a URI such as `s3://bucket/folder`.

    Attributes:
        uri: as given; paths are absolute and without links.

    Raises:
        UserError: no such file system.
    """

    def __init__(self, uri: str) -> None:
        from pyarrow import fs  # only now: it comes with the extra

        try:
            if "://" in uri:
                self._files, root = fs.FileSystem.from_uri(uri)
            else:
                self._files, root = fs.LocalFileSystem(), uri
        except (OSError, ValueError) as error:
            raise UserError(f"{uri}: {_reason(error)}; expected a path, or a URI such as s3://bucket/folder") from error
        self.local = isinstance(self._files, fs.LocalFileSystem)
        self._root = os.path.realpath(root) if self.local else root.rstrip("/")
        self.uri = self._root if self.local else uri

    def images(self, *, results: Folder) -> Images:
        """All images below the folder: on this machine found and told as `infer` does, elsewhere by their endings.

        Args:
            results: go there: where it lies in this folder, what is in it is left out.

        Raises:
            UserError: there are none, both are one folder, or this one cannot be listed.
        """
        inside = self._place_of(results)
        if inside == "":
            raise UserError(f"--output: expected another folder than --input, got {self._root} for both")
        found = self._local_images(results) if self.local else self._remote_images(inside)
        around = results._place_of(self)
        hit = [name for name in found.versions if around and name.startswith(f"{around}/")]
        if hit:
            raise UserError(
                f"--output {results.uri}: the results of {shown(hit[0])} would be written among the images of "
                f"{self.uri}, which is below it; choose another folder"
            )
        return found

    def names(self, below: str) -> list[str]:
        """Names of all files below a folder of this one; none where it is not there."""
        return [name for name, _ in self._listed(below)]

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises OSError."""

        def once() -> bytes:
            with self._files.open_input_stream(f"{self._root}/{name}") as file:
                content: bytes = file.read()
                return content

        return _patiently(once)

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """The bytes of many small files, in order. Raises OSError."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.read, names)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all: object stores do so themselves, elsewhere it is renamed at the end.

        Raises:
            OSError: it cannot be written.
        """
        _patiently(lambda: self._write(f"{self._root}/{name}", content))

    def delete_all(self, names: Sequence[str]) -> None:
        """Delete files. Raises OSError."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._files.delete_file(f"{self._root}/{name}"), names))

    def _place_of(self, other: Folder) -> str | None:
        """Where another folder lies below this one, "" for this one itself; None where it does not."""
        if not self._files.equals(other._files):
            return None
        if self._root == other._root:
            return ""
        root = f"{self._root.rstrip('/')}/"
        return other._root[len(root) :] if other._root.startswith(root) else None

    def _local_images(self, results: Folder) -> Images:
        if not os.path.isdir(self._root):  # noqa: PTH112 - `Path.is_dir` raises for names that are too long
            what = "a file" if os.path.lexists(self._root) else "nothing there"
            raise UserError(f"--input {self._root}: expected a folder, got {what}")
        listing = list_images([self._root], results=results._root if results.local else None)
        versions: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        for image in listing.images:
            try:
                image.relative.encode()
                status = Path(image.path).stat()
            except UnicodeEncodeError:  # neither Ray nor pyarrow takes it
                unreadable[image.relative] = "its name is no UTF-8; rename it, or use `infer`"
            except OSError as error:
                unreadable[image.relative] = error.strerror or str(error)
            else:
                versions[image.relative.replace(os.sep, "/")] = f"{status.st_size} {status.st_mtime_ns}"
        return Images(versions, listing.left_out, unreadable)

    def _remote_images(self, inside: str | None) -> Images:
        try:
            listed = self._listed("")
        except OSError as error:
            raise UserError(f"--input {self.uri}: cannot be listed: {_reason(error)}") from error
        versions: dict[str, str] = {}
        left_out: list[LeftOut] = []
        for name, version in sorted(listed):
            if inside is not None and name.startswith(f"{inside}/"):
                continue
            if any(part.startswith(".") for part in name.split("/")):
                left_out.append(LeftOut(name, "hidden"))
            elif PurePosixPath(name).suffix.lower() not in SUFFIXES:
                left_out.append(LeftOut(name, "no image's ending"))
            else:
                versions[name] = version
        if not versions:
            raise UserError(f"--input {self.uri}: no images there ({', '.join(sorted(SUFFIXES))})")
        return Images(versions, left_out, {})

    def _listed(self, below: str) -> list[tuple[str, str]]:
        from pyarrow import fs

        selector = fs.FileSelector(f"{self._root}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
        found = _patiently(lambda: self._files.get_file_info(selector))
        start = len(self._root.rstrip("/")) + 1
        return [(each.path[start:], f"{each.size} {each.mtime_ns}") for each in found if each.type == fs.FileType.File]

    def _write(self, path: str, content: bytes) -> None:
        renamed = self._files.type_name in ("local", "hdfs")
        folder = path.rpartition("/")[0]
        if renamed:
            self._files.create_dir(folder, recursive=True)
        target = f"{folder}/.{uuid.uuid4().hex[:12]}.part" if renamed else path
        try:
            with self._files.open_output_stream(target) as file:
                file.write(content)
            if renamed:
                self._files.move(target, path)
        except OSError:
            if renamed and self._files.get_file_info(target).is_file:
                self._files.delete_file(target)
            raise


@contextmanager
def writable(folder: Folder) -> Iterator[None]:
    """What fails in the block is said of the folder of results. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--output {folder.uri}: cannot be written: {_reason(error)}") from error


def _patiently(action: Callable[[], Result]) -> Result:
    """Do it again a few times where storage fails, but not for a file that is not there and the like."""
    for pause in _PAUSES_S:
        try:
            return action()
        except OSError as error:
            if error.errno in _FINAL:
                raise
            time.sleep(pause)
    return action()


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
