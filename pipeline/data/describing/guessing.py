"""Which dataset a folder seems to be, and with which options: whatever pairs most images with labels."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.folder.meaning.label_facts import read_label
from pipeline.data.datasets.folder.pairing import LABEL_SUFFIXES
from pipeline.data.datasets.folder.splits import NAMES
from pipeline.data.datasets.shared.dataset import SPLITS
from pipeline.data.datasets.shared.facts import count_values, listed
from pipeline.data.datasets.shared.names import composed
from pipeline.data.datasets.shared.walking import walk
from serving.contract.errors import UserError, shown
from serving.images.formats import SUFFIXES

MAX_NAMES = 4000  # of a folder, compared with those of others
MAX_FOLDERS = 24
_MANY_VALUES = 64  # no label has more classes that a glance at a file finds
_LOOKED_AT = 3
_FILE_OF_LABELS = {
    ".json": "annotations in JSON (COCO, labelme)",
    ".xml": "annotations in XML (CVAT, Pascal VOC)",
    ".txt": "annotations in text (YOLO)",
}


@dataclass(frozen=True)
class Guess:
    """What a folder seems to be.

    Attributes:
        dataset: its name in `DATASETS`.
        options: that it needs, beside the defaults.
        why: in words.
    """

    dataset: str
    options: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class _Candidate:
    """A folder of images, one of labels, and what their names have besides the one that they share."""

    images: str
    labels: str
    options: Mapping[str, Any]
    pairs: int
    photos: bool  # whether the images do not look like labels


@dataclass
class _Names:
    """The files of one folder.

    Attributes:
        folder: its place below the one that is looked at; `.` for that one itself.
        path: of it.
        files: places below it.
    """

    folder: str
    path: Path
    files: list[str]
    endings: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.endings = Counter(Path(file).suffix.lower() for file in self.files)

    def stems(self, suffixes: Iterable[str]) -> list[str]:
        """Names without endings, of files with one of these."""
        wanted = set(suffixes)
        return [composed(file.rpartition(".")[0]) for file in self.files if Path(file).suffix.lower() in wanted]

    @cached_property
    def label_endings(self) -> frozenset[str]:
        """Endings of which most files that are looked at may be labels."""
        found = set()
        for ending in LABEL_SUFFIXES & self.endings.keys():
            files = [file for file in self.files if Path(file).suffix.lower() == ending]
            count = min(_LOOKED_AT, len(files))
            chosen = [files[index * len(files) // count] for index in range(count)]
            if 2 * sum(looks_like_label(self.path / file) for file in chosen) > count:
                found.add(ending)
        return frozenset(found)


def guess_dataset(root: Path) -> Guess:
    """Guess what a folder is: one of the published datasets, or the images and labels of its owner.

    Raises:
        UserError: no such folder, or none in which images have labels.
    """
    if not root.is_dir():
        raise UserError(f"{shown(root)}: no such folder")
    if not (root / "classes.txt").is_file():
        published = next(_published(root), None)
        if published is not None:
            return published
    for base, split in ((root, None), *_split_folders(root)):
        candidate = max(_candidates(base, split), key=_goodness, default=None)
        if candidate is not None:
            return _of_folder(candidate)
    raise UserError(_nothing(root))


def looks_like_label(path: Path) -> bool:
    """Whether a file is exact and holds so few values that it may be a label."""
    try:
        label = read_label(path, None, None)
    except UserError:
        return False
    values = label.pixels if label.pixels.ndim == 2 else label.pixels.reshape(-1, 3) @ (1, 256, 65536)
    return len(count_values(values)) <= _MANY_VALUES


def _published(root: Path) -> Iterator[Guess]:
    for name in DATASETS:
        dataset_class = DATASETS.resolve(name)
        if name == "folder" or dataset_class.generated:
            continue
        for options in ({}, {"release": "10k"}) if name == "coco_stuff" else ({},):
            dataset = dataset_class(root, options)
            if not dataset.layout_problems():
                counts = {split: len(dataset.pairs(split)) for split in SPLITS}
                if counts["train"]:
                    told = ", ".join(f"{count} {split}" for split, count in counts.items() if count)
                    yield Guess(name, options, f"it has the folders of this dataset ({told})")


def _split_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Folders of the training split, in which images and labels may lie."""
    for name in NAMES["train"]:
        if (root / name).is_dir():
            yield root / name, name


def _candidates(base: Path, split: str | None) -> Iterator[_Candidate]:
    folders = list(_folders(base))
    for of_images, of_labels in itertools.product(folders, folders):
        same = of_images is of_labels
        nested = not same and "." in (of_images.folder, of_labels.folder)
        if nested or not (same or of_labels.label_endings) or not SUFFIXES & of_images.endings.keys():
            continue
        found = _same_folder(of_images) if same else _two_folders(of_images, of_labels)
        if found is not None:
            options, pairs = found
            photos = same or not of_images.label_endings
            yield _Candidate(of_images.folder, of_labels.folder, options, pairs, photos)


def _folders(base: Path) -> Iterator[_Names]:
    """The folders below `base`, two deep; those of splits stand for what lies in them."""
    yield _Names(".", base, [file for file in walk(base).files if "/" not in file][:MAX_NAMES])
    places = [path for path in sorted(base.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    places += [deep for path in list(places) for deep in sorted(path.iterdir()) if deep.is_dir()]
    splits = {name for names in NAMES.values() for name in names}
    for path in places[:MAX_FOLDERS]:
        relative = path.relative_to(base).as_posix()
        if not splits & set(relative.split("/")):
            yield _Names(relative, path, walk(path).files[:MAX_NAMES])


def _two_folders(images: _Names, labels: _Names) -> tuple[dict[str, Any], int] | None:
    """Options with which labels in one folder have the names of images in another, and how many do."""
    of_images, of_labels = images.stems(SUFFIXES), labels.stems(labels.label_endings)
    masks = {stem.rpartition("/")[0] for stem in of_labels if "/" in stem} & set(of_images)
    best: tuple[int, dict[str, Any]] = (len(masks), {})
    for image_suffix, label_suffix in itertools.product(_suffixes(of_images), _suffixes(of_labels)):
        shared = _without(of_images, image_suffix) & _without(of_labels, label_suffix)
        if len(shared) > best[0]:
            given = {"image_suffix": image_suffix, "label_suffix": label_suffix}
            best = (len(shared), {name: suffix for name, suffix in given.items() if suffix})
    pairs, options = best
    if not pairs:
        return None
    if len(_suffixes(of_labels)) > 2 and "label_suffix" in options:
        options = {}  # a.png has a_car.png and a_road.png: the suffixes are classes
    if set(labels.stems(LABEL_SUFFIXES - labels.label_endings)) & set(of_labels) or len(labels.label_endings) > 1:
        options["label_ending"] = max(labels.label_endings, key=lambda ending: labels.endings[ending])
    return options, pairs


def _same_folder(names: _Names) -> tuple[dict[str, Any], int] | None:
    """The same, where images and labels lie in one folder: a suffix or an ending tells them apart."""
    stems = names.stems({*SUFFIXES, *LABEL_SUFFIXES})
    for suffix in _suffixes(stems):
        shared = set(stems) & _without(stems, suffix) if suffix else set()
        example = next((file for file in names.files if composed(file.rpartition(".")[0]).endswith(suffix)), None)
        if shared and example is not None and looks_like_label(names.path / example):
            return {"label_suffix": suffix}, len(shared)
    for one, other in itertools.permutations(names.endings, 2):
        shared = set(names.stems({one})) & set(names.stems({other}))
        if not shared or one not in SUFFIXES or other not in LABEL_SUFFIXES:
            continue
        of_one, of_other = (
            next(
                file
                for file in names.files
                if Path(file).suffix.lower() == ending and composed(file.rpartition(".")[0]) in shared
            )
            for ending in (one, other)
        )
        if looks_like_label(names.path / of_other) and (len(shared) > 1 or not looks_like_label(names.path / of_one)):
            return {"image_ending": one, "label_ending": other}, len(shared)
    return None


def _suffixes(stems: Iterable[str]) -> list[str]:
    """What follows the last underscore or hyphen of many names, or of all of a few, and nothing."""
    ends: Counter[str] = Counter()
    stems = list(stems)
    for stem in stems:
        position = max(stem.rfind("_"), stem.rfind("-"))
        if position > 0 and not stem[position + 1 :].isdigit():
            ends[stem[position:]] += 1
    return ["", *(end for end, count in ends.most_common(6) if count >= 2 or len(stems) <= 2)]


def _without(stems: Iterable[str], suffix: str) -> set[str]:
    return {stem.removesuffix(suffix) for stem in stems if stem.endswith(suffix)}


def _goodness(candidate: _Candidate) -> tuple[bool, int, int, int]:
    """Photos, then most pairs; of equal ones what the defaults name, then the shortest names."""
    defaults = (candidate.images == "images") + (candidate.labels == "labels")
    return candidate.photos, candidate.pairs, defaults, -len(candidate.images) - len(candidate.labels)


def _of_folder(candidate: _Candidate) -> Guess:
    options: dict[str, Any] = {}
    if candidate.images != "images":
        options["image_folder"] = candidate.images
    if candidate.labels != "labels":
        options["label_folder"] = candidate.labels
    options |= candidate.options
    have = (
        "image in {} has a label of its name in {}"
        if candidate.pairs == 1
        else "images in {} have labels of their names in {}"
    )
    where = have.format(f"{shown(candidate.images)}/", f"{shown(candidate.labels)}/")
    return Guess("folder", options, f"{candidate.pairs} {where}")


def _nothing(root: Path) -> str:
    """What lies there instead."""
    files = walk(root).files
    endings = Counter(Path(file).suffix.lower() or "no ending" for file in files)
    told = listed((f"{count} {shown(ending)}" for ending, count in endings.most_common(8)), 8)
    hints = [
        f"{what}: `contrail import` may read them" for ending, what in _FILE_OF_LABELS.items() if endings[ending] > 1
    ]
    lines = [f"{shown(root)}: no images with labels of the same names; it holds {told or 'nothing'}", *hints]
    lines.append("docs/datasets.md says where images and labels may lie")
    return "\n".join(lines)
