"""What every dataset is: pairs of files per split, and labels decoded to train ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.facts import Findings, LabelFacts
from pipeline.data.datasets.shared.label_files import label_orientation
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour
from pipeline.data.datasets.shared.names import relative_name
from serving.contract.errors import UserError
from serving.contract.schema import Problems, Require, build
from serving.images.formats import SUFFIXES
from serving.images.listing import LeftOut

LabelFile = tuple[Path, bytes | None]
"""A label file with its bytes, or None where they are not read yet."""

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = tuple(sorted(SUFFIXES))


@dataclass(frozen=True)
class Pair:
    """One image with its label.

    Attributes:
        name: what reports call it; unique within its split.
        image: image file.
        label: label file; it may be missing, which `prepare` reports.
        sequence: the video or drive the image is from, where the dataset says so: images of one sequence are not
            independent, and intervals are bootstrapped over whole sequences.
        more_labels: further files that make one label together with `label`, such as the masks of other classes.
    """

    name: str
    image: Path
    label: Path
    sequence: str | None = None
    more_labels: tuple[Path, ...] = ()

    @property
    def labels(self) -> tuple[Path, ...]:
        """All files of the label."""
        return (self.label, *self.more_labels)


@dataclass(frozen=True)
class LoneImage:
    """An image without a label, for methods that learn from such ones.

    Attributes:
        name: what reports call it.
        image: image file.
        sequence: as that of a pair.
    """

    name: str
    image: Path
    sequence: str | None = None


@dataclass(frozen=True)
class SubsetOptions:
    """Options of every dataset: which training images are trained on. By default all, and its splits are its own.

    Attributes:
        hold_out: a recording of the training images that is not trained on; its images are val then, in place of the
            dataset's own. To choose settings with, one recording after the other.
        train_images: how many of the training images (without a held-out recording) are trained on; null for all. The
            others are listed as unlabelled images: their labels are not looked at in training.
        subset_seed: which ones. Of one seed, fewer are among more.
    """

    hold_out: str | None = None
    train_images: int | None = None
    subset_seed: int = 0

    def __post_init__(self) -> None:
        require = Require()
        self.check(require)
        require.done()

    def check(self, require: Require) -> None:
        """Note what is wrong with the options; a dataset with others beside these adds what is wrong with them."""
        if self.train_images is not None:
            require(self.train_images >= 1, f"train_images: expected at least 1, got {self.train_images}")
        require(self.subset_seed >= 0, f"subset_seed: expected at least 0, got {self.subset_seed}")


class Dataset(ABC):
    """A dataset in its public layout on disk. Making one reads no file: it is cheap and cannot fail on bad data.

    Args:
        root: the dataset's folder; None for a generated dataset before its files exist.
        options: `prepare.options` of params.yaml, checked against the class's `Options`.

    Raises:
        UserError: unknown or mistyped options, all at once.
    """

    Options: ClassVar[type[SubsetOptions]] = SubsetOptions
    generated: ClassVar[bool] = False
    """Whether the dataset makes its own files (`generate`) instead of reading the user's."""

    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int = IGNORE_INDEX

    def __init__(self, root: Path | None, options: Mapping[str, object]) -> None:
        problems = Problems()
        built = build(self.Options, options, "prepare.options", problems)
        if built is None:
            raise UserError("\n".join(problems))
        self.options: Any = built
        self._root = root

    @property
    def root(self) -> Path:
        """The dataset's folder. Raises UserError when none was given."""
        if self._root is None:
            raise UserError(
                f"the dataset {type(self).__name__} needs its folder: set prepare.root in params.yaml "
                "(docs/datasets.md says which folder)"
            )
        return self._root

    @abstractmethod
    def layout_problems(self) -> list[str]:
        """What the root lacks of the public layout, one line each, naming path and purpose; empty when all is there."""

    @abstractmethod
    def pairs(self, split: str) -> list[Pair]:
        """The pairs of `split` ("train", "val" or "test"), sorted by name; empty where the dataset has no such split.

        An image without a label (or the reverse) is in the list with the path where the missing file should be.
        """

    def unlabelled(self) -> list[LoneImage]:
        """Images that have no label and are in no split, sorted by name; most datasets have none."""
        return []

    @abstractmethod
    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        """Read a label file as train ids: `[H,W]` uint8, `ignore_index` outside every class.

        Args:
            path: the file.
            content: its bytes where they are known; it is not read again then.

        Raises:
            UnreadableError: not an image, truncated, or not accessible.
            LabelError: wrong mode, or an id that the dataset does not have.
        """

    def decode_labels(self, files: Sequence[LabelFile]) -> NDArray[np.uint8]:
        """Read the files of one label (`Pair.labels`), with their bytes, as train ids `[H,W]` uint8.

        Raises as `decode_label`.
        """
        ((path, content),) = files
        return self.decode_label(path, content)

    def examine(self, files: Sequence[LabelFile]) -> LabelFacts:
        """What the files of one label hold, before `settle`. Raises as `decode_label`."""
        label = self.decode_labels(files)
        counts = np.bincount(label.reshape(-1), minlength=256)
        found = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        height, width = label.shape
        name = relative_name(files[0][0], self.root)
        return LabelFacts(name, height, width, found, orientation=label_orientation(*files[0]))

    def settle(self, all_facts: Sequence[LabelFacts], findings: Findings) -> None:
        """Settle what the values in labels mean, from the facts of all labels; most datasets know it beforehand.

        Afterwards `decode_labels` and `train_counts` go by it. What cannot be told is a problem in `findings`.
        """
        assert self.encoding is None, "a dataset with something to settle does so itself"

    @property
    def encoding(self) -> dict[str, Any] | None:
        """What was settled, for dataset.json; None where there was nothing to settle."""
        return None

    def use_encoding(self, encoding: Mapping[str, Any] | None) -> None:
        """Go by what an earlier `settle` found. Raises KeyError, TypeError or ValueError for what is none."""
        if encoding is not None:
            raise ValueError(f"{type(self).__name__} knows what the values in labels mean")

    def train_counts(self, facts: LabelFacts) -> NDArray[np.int64]:
        """`[256]`: pixels of a label by train id, void at `ignore_index`."""
        totals = np.zeros(256, dtype=np.int64)
        for value, count in facts.counts.items():
            totals[value] = count
        return totals

    def left_out(self) -> list[LeftOut]:
        """What lies in the dataset's folders and is not read, with the reason."""
        return []

    def seconds(self, name: str) -> float | None:
        """When in its recording the image `name` was taken, in seconds; None where its name does not tell."""
        return None

    def generate(self, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Write a generated dataset's files under `folder`, calling `progress(done, total)` after each."""
        raise AssertionError(f"{type(self).__name__} is not generated")


def missing_folders(root: Path, folders: Mapping[str, str]) -> list[str]:
    """One line for each of `folders` (path below `root` -> what it holds) that is not a folder."""
    if not root.is_dir():
        return [f"{root}: no such folder"]
    return [
        f"{root / name}: missing folder ({purpose})" for name, purpose in folders.items() if not (root / name).is_dir()
    ]


def list_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files directly in `folder` with one of `suffixes` (any case), sorted by name; hidden files are left out."""
    if not folder.is_dir():
        return []
    wanted = tuple(suffixes)
    found = [path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.name)


def pair_by_name(
    images: Iterable[Path],
    labels: Iterable[Path],
    *,
    label_path: Callable[[str], Path],
    image_path: Callable[[str], Path],
    image_name: Callable[[Path], str] = lambda path: path.stem,
    label_name: Callable[[Path], str] = lambda path: path.stem,
    sequence: Callable[[str], str | None] = lambda name: None,
) -> list[Pair]:
    """Pair images with labels of the same name; what has no partner is paired with the path where that should be.

    Args:
        images: image files.
        labels: label files.
        label_path: name -> where a missing label should be.
        image_path: name -> where a missing image should be.
        image_name: the name of an image file.
        label_name: the name of a label file.
        sequence: name -> sequence.

    Returns:
        Pairs sorted by name. Two files of one name give two pairs of that name, which `prepare` reports.
    """
    images_of: dict[str, list[Path]] = {}
    labels_of: dict[str, list[Path]] = {}
    for path in images:
        images_of.setdefault(image_name(path), []).append(path)
    for path in labels:
        labels_of.setdefault(label_name(path), []).append(path)
    pairs = []
    for name in sorted(images_of.keys() | labels_of.keys()):
        for image in images_of.get(name) or [image_path(name)]:
            pairs += [Pair(name, image, label, sequence(name)) for label in labels_of.get(name) or [label_path(name)]]
    return pairs
