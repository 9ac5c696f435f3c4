"""What `prepare` leaves for the later stages, and how they read it."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset
from pipeline.data.datasets.shared.labels import Colour
from pipeline.layout.dataset_root import resolve_root as resolve_root
from serving.contract.errors import UserError
from serving.images.decoding import decode_image
from serving.images.image_io import open_file, read_image

SCHEMA = 2
FILE_NAME = "dataset.json"

_IMAGE, _LABEL = 0, 1


@dataclass(frozen=True)
class Entry:
    """One pair, or an image without a label, as prepared; paths are relative to the dataset's root, with `/`.

    Attributes:
        name: what reports call it; printable.
        image: the image file.
        label: the label file, or the first of several that make one label; empty for an unlabelled image.
        image_sha256: of the image file.
        label_sha256: of the label file, or `files_sha256` of several; empty for an unlabelled image.
        height: in pixels, EXIF orientation applied.
        width: likewise.
        sequence: the recording that it is from, where known.
        more_labels: further files of the label.
    """

    name: str
    image: str
    label: str
    image_sha256: str
    label_sha256: str
    height: int
    width: int
    sequence: str | None
    more_labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For dataset.json; what most entries do not have is left out."""
        content = asdict(self)
        if not self.more_labels:
            del content["more_labels"]
        if not self.label:
            del content["label"], content["label_sha256"]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Entry:
        """What `to_json` gave. Raises TypeError for anything else."""
        unlabelled = {} if "label" in content else {"label": "", "label_sha256": ""}
        return cls(**{**content, **unlabelled, "more_labels": tuple(content.get("more_labels", ()))})

    def without_label(self) -> Entry:
        """The image alone."""
        return replace(self, label="", label_sha256="", more_labels=())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def labels(self) -> tuple[str, ...]:
        """All files of the label; none for an unlabelled image."""
        return (self.label, *self.more_labels) if self.label else ()


@dataclass(frozen=True)
class PreparedSplit:
    """The pairs of one split, read one at a time: memory does not grow with what was read.

    What is read is what was prepared: the first time that a file is read, and whenever its size or time of change is
    not what it was then, its bytes are compared with the prepared hash. Which files are known is shared by the
    processes that are forked from this one.

    Attributes:
        dataset: decodes the labels.
        root: folder that the entries' paths are relative to.
        entries: the pairs, sorted by name.
    """

    dataset: Dataset
    root: Path
    entries: tuple[Entry, ...]
    _known: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        shared = mmap.mmap(-1, max(1, 2 * 8 * len(self.entries)))  # anonymous, so that forked processes share it
        known = np.frombuffer(shared, dtype=np.int64, count=2 * len(self.entries)).reshape(-1, 2)
        object.__setattr__(self, "_known", known)

    def __len__(self) -> int:
        return len(self.entries)

    def name(self, index: int) -> str:
        """What reports call pair `index`."""
        return self.entries[index].name

    def sequence(self, index: int) -> str | None:
        """The recording that pair `index` is from, or None where the dataset does not say."""
        return self.entries[index].sequence

    def image_path(self, index: int) -> Path:
        """The image file of pair `index`."""
        return self.root / self.entries[index].image

    def label_paths(self, index: int) -> tuple[Path, ...]:
        """The label files of pair `index`; most labels are one file."""
        return tuple(self.root / label for label in self.entries[index].labels)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of pair `index` in pixels."""
        return self.entries[index].size

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The image of pair `index`: `[H,W,3]` uint8 RGB.

        Raises:
            UserError: the file is gone, or is not the one that was prepared.
        """
        path = self.image_path(index)
        content = self._changed((path,), index, _IMAGE)
        if content is None:
            return read_image(path)
        return decode_image(io.BytesIO(content[0][1]), str(path)).pixels

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of pair `index`: `[H,W]` uint8 train ids, 255 outside every class.

        Raises:
            UserError: a file is gone, or is not the one that was prepared, or the image is unlabelled.
        """
        if not self.entries[index].label:
            raise UserError(f"{self.image_path(index)}: is listed without a label, and cannot be scored")
        paths = self.label_paths(index)
        return self.dataset.decode_labels(self._changed(paths, index, _LABEL) or [(path, None) for path in paths])

    def _changed(self, paths: tuple[Path, ...], index: int, which: int) -> list[tuple[Path, bytes]] | None:
        """The files with their bytes, compared with the prepared hash; None where they are known to be those.

        Raises:
            UserError: they are not those.
        """
        states = []
        for path in paths:
            try:
                status = path.stat()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
            states.append((status.st_size, status.st_mtime_ns))
        state = hash(tuple(states)) | 1  # never the 0 of a file that was not read yet
        if self._known[index, which] == state:
            return None
        files = [(path, read_bytes(path)) for path in paths]
        entry = self.entries[index]
        expected = entry.image_sha256 if which == _IMAGE else entry.label_sha256
        if files_sha256(files) != expected:
            raise UserError(
                f"{', '.join(map(str, paths))}: not what was prepared (other bytes): prepare again, with dvc repro or "
                "python -m pipeline.stages.prepare"
            )
        self._known[index, which] = state
        return files


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset.

    Attributes:
        dataset_name: its name in `DATASETS`.
        class_names: C names; the index is the train id.
        palette: C colours, RGB.
        ignore_index: label outside every class (255).
        class_frequencies: C shares of the labelled training pixels; they sum to 1.
        class_pixels: split -> C numbers of pixels.
        sha256: hash of everything that identifies the data: classes, options, and the bytes of every file.
        splits: name -> pairs.
        warnings: what prepare found odd: `kind: what`.
        notes: what prepare was certain of and took so: `kind: what`.
        unlabelled: images without labels, which are in no split and are never scored; None without any.
    """

    dataset_name: str
    class_names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ignore_index: int
    class_frequencies: tuple[float, ...]
    class_pixels: Mapping[str, tuple[int, ...]]
    sha256: str
    splits: Mapping[str, PreparedSplit] = field(repr=False)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unlabelled: PreparedSplit | None = field(default=None, repr=False)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    def require_classes(self, class_names: Sequence[str], whose: object) -> None:
        """See that something was made for the classes of this dataset.

        Args:
            class_names: that it was made for.
            whose: what it is, for the message.

        Raises:
            UserError: it was made for others, and every number of it on these data would mean nothing.
        """
        ours, theirs = list(self.class_names), list(class_names)
        if ours != theirs:
            there, here = next(pair for pair in zip_longest(theirs, ours) if pair[0] != pair[1])
            raise UserError(
                f"{whose}: made for other classes than the prepared data have (first difference: {there!r}, the data "
                f"{here!r}); give the data that it was made for, or train it again"
            )

    def split(self, name: str) -> PreparedSplit:
        """The split `name` ("train", "val", "test"). Raises UserError when the dataset has no pairs in it."""
        if name not in self.splits:
            raise UserError(f"unknown split {name!r}; expected one of {', '.join(SPLITS)}")
        split = self.splits[name]
        if not len(split):
            have = ", ".join(known for known, value in self.splits.items() if len(value))
            raise UserError(
                f"the dataset {self.dataset_name} has no labelled images in its split {name!r}; it has: {have}"
            )
        return split


def load_prepared(prepared_dir: Path, root: Path | None) -> Prepared:
    """Open what `prepare` wrote.

    Args:
        prepared_dir: the folder with `dataset.json`.
        root: the dataset's folder (`resolve_root(config.root)`); None for a generated dataset, whose files are in
            `prepared_dir` itself.

    Raises:
        UserError: no prepared dataset there, a damaged or edited one, or a missing root.
    """
    path = prepared_dir / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise UserError(f"{path}: schema {content['schema']}, expected {SCHEMA}; run prepare again")
        if content["sha256"] != content_sha256(content):
            raise UserError(f"{path}: its sha256 does not fit its content: it was edited or damaged; run prepare again")
        dataset_class = DATASETS.resolve(content["dataset"])
        if dataset_class.generated:
            root = prepared_dir / content["dataset"]
        dataset = dataset_class(root, content["options"])
        dataset.use_encoding(content["encoding"])
        base = dataset.root
        if list(dataset.class_names) != content["class_names"]:
            raise UserError(f"{base}: its classes are not those of {path} any more; run prepare again")
        splits = {
            name: PreparedSplit(dataset, base, tuple(map(Entry.from_json, entries)))
            for name, entries in content["splits"].items()
        }
        prepared = Prepared(
            dataset_name=content["dataset"],
            class_names=tuple(content["class_names"]),
            palette=tuple((red, green, blue) for red, green, blue in content["palette"]),
            ignore_index=content["ignore_index"],
            class_frequencies=tuple(content["class_frequencies"]),
            class_pixels={name: tuple(pixels) for name, pixels in content["class_pixels"].items()},
            sha256=content["sha256"],
            warnings=tuple(content["warnings"]),
            notes=tuple(content["notes"]),
            splits=splits,
            unlabelled=(
                PreparedSplit(dataset, base, tuple(map(Entry.from_json, content["unlabelled"])))
                if content.get("unlabelled")
                else None
            ),
        )
    except FileNotFoundError as error:
        raise UserError(f"{path}: no prepared dataset; run the stage prepare first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a prepared dataset ({error}); run prepare again") from error
    return prepared


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises UserError when it is gone, unreadable, or no file."""
    with open_file(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def content_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content of dataset.json without its own `sha256`."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def files_sha256(files: Sequence[tuple[Path, bytes]]) -> str:
    """SHA-256 of a file; of several, that of their names and own hashes, one after the other."""
    hashes = [hashlib.sha256(content).hexdigest() for _, content in files]
    if len(hashes) == 1:
        return hashes[0]
    lines = (os.fsencode(path.name) + b"\0" + digest.encode() for (path, _), digest in zip(files, hashes, strict=True))
    return hashlib.sha256(b"\n".join(lines)).hexdigest()
