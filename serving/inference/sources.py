"""What stands on the command line: files, folders, patterns, and lists of them in files or on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.contract.errors import UserError, shown
from serving.images.listing import ListedImage, Listing, list_images

STANDARD_INPUT = "-"


def find_images(named: Sequence[str], *, lists: Sequence[str] = (), results: str | None = None) -> Listing:
    """Find the images that a command line stands for.

    Args:
        named: files, folders, patterns such as `photos/**/*.jpg`, or `-` for a list on standard input.
        lists: files with one name per line (or with NUL after each name, as `find -print0` writes them).
        results: the folder that results go to, left out wherever it lies.

    Raises:
        UserError: nothing is named, a list cannot be read, a pattern fits nothing, or what `list_images` raises.
    """
    if not named and not lists:
        raise UserError("no image is named; give files, folders, patterns, - for a list on standard input, or --list")
    if "" in named:
        raise UserError("an image without a name: is a variable of the command line empty?")
    found = Listing()
    plain: list[str] = []
    for name in named:
        if name == STANDARD_INPUT or (_is_pattern(name) and not os.path.lexists(name)):
            _add(found, plain, results)
            names = _read_names(None) if name == STANDARD_INPUT else _fitting(name)
            root = None if name == STANDARD_INPUT else _fixed_part(name)
            _extend(found, _below(names, root, results))
        else:
            plain.append(name)
    _add(found, plain, results)
    for path in lists:
        _extend(found, _below(_read_names(path), None, results))
    return found


def _add(found: Listing, plain: list[str], results: str | None) -> None:
    """What was named so far, in one pass: a name that is given twice is read once."""
    if plain:
        _extend(found, list_images(plain, results=results))
        plain.clear()


def _extend(found: Listing, more: Listing) -> None:
    known = {(image.folder, os.path.basename(image.path)) for image in found.images}
    found.images += [image for image in more.images if (image.folder, os.path.basename(image.path)) not in known]
    found.left_out += more.left_out


def _below(names: Sequence[str], root: str | None, results: str | None) -> Listing:
    """The images of a list; results keep the tree below `root`, or below the folder that all of them share."""
    listing = list_images(names, results=results)
    if not listing.images:
        return listing
    folders = {folder: os.path.abspath(folder) for folder in {os.path.dirname(each.path) for each in listing.images}}
    top = os.path.abspath(root) if root is not None else os.path.commonpath(folders.values())
    return Listing(
        [_placed(each, folders[os.path.dirname(each.path)], top) for each in listing.images], listing.left_out
    )


def _placed(image: ListedImage, folder: str, top: str) -> ListedImage:
    """The image with its place below `top`, which its absolute `folder` lies in."""
    place = os.path.join(folder, os.path.basename(image.path))[len(os.path.join(top, "")) :]
    return image._replace(relative=place)


def _read_names(path: str | None) -> list[str]:
    """Names as bytes, so that undecodable ones survive."""
    where = path if path is not None else "standard input"
    try:
        content = sys.stdin.buffer.read() if path is None else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{shown(where)}: cannot be read: {error.strerror or error}") from error
    content = content.removeprefix(b"\xef\xbb\xbf")  # Windows' editors begin UTF-8 so
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        # Its zero bytes would part it as `find -print0` does, and the slashes between them name the whole machine.
        raise UserError(f"{shown(where)}: is UTF-16; expected names in UTF-8 (of PowerShell: Out-File -Encoding utf8)")
    separator = b"\0" if b"\0" in content else b"\n"
    names = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator)]
    names = [name for name in names if name]
    if not names:
        raise UserError(f"{shown(where)}: no name in it; expected one image or folder per line")
    return names


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _fitting(pattern: str) -> list[str]:
    import glob  # only now: shells do it themselves, mostly

    names = sorted(glob.glob(pattern, recursive=True))
    if not names:
        raise UserError(f"{shown(pattern)}: fits no file")
    return names


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first `*`, `?` or `[`."""
    parts = pattern.split(os.sep)
    first = next(index for index, part in enumerate(parts) if _is_pattern(part))
    return os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else os.curdir)
