"""Which images train, validate and test: told by folders, by lists, or dealt out by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.datasets.shared.dataset import SPLITS
from pipeline.data.datasets.shared.names import composed
from serving.contract.errors import UserError, shown

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What folders and lists of a split are called."""

UNLABELLED = "unlabelled"
"""What the list of images without labels is called, which are in no split."""

_LIST_FOLDERS = ("", "splits", "lists", "ImageSets/Segmentation", "ImageSets")


@dataclass(frozen=True)
class SplitList:
    """A file that names the images of a split.

    Attributes:
        path: of the file.
        lines: its lines, without empty ones.
    """

    path: Path
    lines: tuple[str, ...]


def split_folder(folder: Path, split: str) -> Path | None:
    """The folder of a split in `folder`, whichever of its names it has."""
    return next((folder / name for name in NAMES[split] if (folder / name).is_dir()), None)


def find_lists(root: Path) -> dict[str, SplitList]:
    """The lists of splits (train.txt and so on) in `root` or the usual folders in it; the first folder with any.

    Raises:
        UserError: a list that cannot be read as text.
    """
    return {split: SplitList(paths[0], _lines(paths[0])) for split, paths in _list_paths(root).items()}


def doubled_lists(root: Path) -> list[str]:
    """One line for each split that has lists under several of its names."""
    return [
        f"{shown(paths[0])}: there is {' and '.join(path.name for path in paths[1:])} too, and both are lists of "
        f"{split}; keep one"
        for split, paths in _list_paths(root).items()
        if len(paths) > 1
    ]


def find_unlabelled_list(root: Path) -> SplitList | None:
    """The list of images without labels, `unlabelled.txt`, where the lists of splits may lie.

    Raises:
        UserError: it cannot be read as text.
    """
    paths = (root / folder / f"{UNLABELLED}.txt" for folder in _LIST_FOLDERS)
    path = next((path for path in paths if path.is_file()), None)
    return None if path is None else SplitList(path, _lines(path))


def assign_by_lists(
    lists: Mapping[str, SplitList], names: Sequence[str], prefixes: Sequence[str], suffix: str
) -> tuple[dict[str, str], list[str]]:
    """Which split every image is in.

    A line is the name of an image, with or without ending and folder; what follows behind a blank (the label, in some
    lists) is not needed.

    Args:
        lists: split -> list.
        names: of the images, in Unicode's composed form.
        prefixes: folders that lines may begin with, each with its `/`.
        suffix: that file names of images have behind the name.

    Returns:
        Name -> split, and problems: names in a list that are no image, or in two lists.
    """
    known = set(names)
    split_of: dict[str, str] = {}
    problems: list[str] = []
    for split, one in lists.items():
        for line in one.lines:
            name = next((each for each in _readings(line, prefixes, suffix) if each in known), None)
            if name is None:
                problems.append(f"{one.path}: {shown(line)!r} is no image")
            elif split_of.setdefault(name, split) != split:
                problems.append(f"{one.path}: {shown(name)!r} is in the list of {split_of[name]} too")
    return split_of, problems


def deal(names: list[str], *, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """Name -> split, by the order of the SHA-256 of the names (in NFC): depends on nothing but the names."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(composed(name).encode("utf-8", "surrogateescape")).digest())
    val = max(1, round(len(ordered) * val_fraction))
    test = round(len(ordered) * test_fraction)
    splits = ["val"] * val + ["test"] * test + ["train"] * max(0, len(ordered) - val - test)
    return dict(zip(ordered, splits, strict=False))


def _list_paths(root: Path) -> dict[str, list[Path]]:
    """Split -> its lists, one for each name that is used, in the first of the usual folders that has any."""
    for folder in _LIST_FOLDERS:
        named = {split: [root / folder / f"{name}.txt" for name in NAMES[split]] for split in SPLITS}
        found = {split: [path for path in paths if path.is_file()] for split, paths in named.items()}
        if any(found.values()):
            return {split: paths for split, paths in found.items() if paths}
    return {}


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _readings(line: str, prefixes: Sequence[str], suffix: str) -> Iterable[str]:
    """Names that a line may mean, the likeliest first."""
    texts = [line]
    for first, *others in (line.split(), [word.strip() for word in line.split(",")]):
        # What follows must be of the image, its label or a number: `a b.jpg` is not the image a.
        if others and all(_is_number(each) or _stem(each).startswith(_stem(first)) for each in others):
            texts.append(first)
    for text in texts:
        text = composed(text.replace("\\", "/").removeprefix("./"))
        for prefix in ("", *prefixes):
            rest = text.removeprefix(prefix)
            for stem in (rest, rest.rpartition(".")[0]):
                yield stem
                if suffix and stem.endswith(suffix):
                    yield stem.removesuffix(suffix)


def _stem(text: str) -> str:
    """The name of a file, without folders and ending."""
    name = text.replace("\\", "/").rpartition("/")[2]
    return composed(name.rpartition(".")[0] or name)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()
