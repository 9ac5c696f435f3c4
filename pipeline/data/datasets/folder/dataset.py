"""Anyone's own data: images, labels and `classes.txt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.folder.arrangement import FolderArrangement
from pipeline.data.datasets.folder.classes import ClassLine, distinct_colour, parse_classes, read_classes
from pipeline.data.datasets.folder.layout import find_layout
from pipeline.data.datasets.folder.meaning.encoding import Encoding
from pipeline.data.datasets.folder.meaning.label_facts import examine_label, examine_masks, read_label
from pipeline.data.datasets.folder.meaning.masks import MODE, MaskEncoding, object_class, settle_masks
from pipeline.data.datasets.folder.meaning.settling import settle
from pipeline.data.datasets.folder.meaning.views import as_colours, as_numbers
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.shared.dataset import Dataset, LabelFile, LoneImage, Pair
from pipeline.data.datasets.shared.facts import Findings, LabelFacts
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour
from pipeline.data.datasets.shared.names import relative_name
from serving.contract.errors import UserError, did_you_mean
from serving.images.listing import LeftOut


class Folder(Dataset):
    """`images/NAME.jpg` with `labels/NAME.png`, and `classes.txt`: one class a line, line k naming label number k - 1.

    docs/datasets.md says what labels may be and where everything may lie. Splits are told by folders
    (`images/train`, `train/images`) or by lists (`train.txt`); without either, sequences (or single images) are ordered
    by the SHA-256 of their name and dealt out: first val, then test, the rest train, so that the split depends on the
    names alone. What the values in labels mean is settled from all labels together (`settle`).
    """

    Options = FolderOptions
    options: FolderOptions
    _settled: Encoding | MaskEncoding | None = None

    @cached_property
    def _classes(self) -> tuple[ClassLine, ...]:
        path = self.root / "classes.txt"
        if not self.options.classes:
            return read_classes(path)
        if path.is_file():
            raise UserError(f"{path}: prepare.options.classes says what the classes are too; remove one of the two")
        return parse_classes(self.options.classes, "prepare.options.classes")

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(line.name for line in self._classes)

    @property
    def palette(self) -> tuple[Colour, ...]:  # type: ignore[override]
        return tuple(line.colour or distinct_colour(index) for index, line in enumerate(self._classes))

    @cached_property
    def _arrangement(self) -> FolderArrangement:
        try:
            names = self.class_names
        except UserError:  # `layout_problems` tells; what lies where can be seen all the same
            names = ()
        return FolderArrangement(self.root, self.options, names)

    def layout_problems(self) -> list[str]:
        try:
            names = self.class_names
        except UserError as error:
            lines = str(error).splitlines()
            return [*find_layout(self.root, self.options).problems, *(lines if self.root.is_dir() else [])]
        background = self.options.background
        if background not in (None, "void", *names):
            return [f"prepare.options.background: {background!r} is no class{did_you_mean(str(background), names)}"]
        return self._arrangement.problems()

    def pairs(self, split: str) -> list[Pair]:
        return self._arrangement.pairs(split)

    def unlabelled(self) -> list[LoneImage]:
        return self._arrangement.unlabelled()

    def left_out(self) -> list[LeftOut]:
        return self._arrangement.left_out

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self.decode_labels([(path, content)])

    def decode_labels(self, files: Sequence[LabelFile]) -> NDArray[np.uint8]:
        labels = [(path, read_label(path, content, self.options.mat_variable)) for path, content in files]
        encoding = self._encoding
        if isinstance(encoding, MaskEncoding):
            return encoding.decode(labels)
        ((path, label),) = labels
        return encoding.decode(label, path)

    @property
    def _encoding(self) -> Encoding | MaskEncoding:
        """What was settled; before that, the numbers that the lines of classes.txt say."""
        if self._settled is None:
            self._settled = Encoding.of_lines(self._classes, (IGNORE_INDEX, *self.options.void_values))
        return self._settled

    def examine(self, files: Sequence[LabelFile]) -> LabelFacts:
        labels = [(path, read_label(path, content, self.options.mat_variable)) for path, content in files]
        name = relative_name(files[0][0], self.root)
        if len(files) == 1 and files[0][0] not in self._arrangement.masks:
            return examine_label(labels[0][1], name)
        of_objects = object_class(self.class_names, self.options.background) if self._arrangement.of_objects else None
        return examine_masks(labels, name, self.class_names, of_objects, last=self.options.overlap == "last")

    def settle(self, all_facts: Sequence[LabelFacts], findings: Findings) -> None:
        if any(facts.mode == MODE for facts in all_facts):
            self._settled = settle_masks(
                self.class_names,
                self._arrangement.of_objects,
                self.options.background,
                self.options.overlap,
                all_facts,
                findings,
            )
        else:
            self._settled = settle(self._classes, self.options, all_facts, findings)

    @property
    def encoding(self) -> dict[str, Any]:
        return self._encoding.to_json()

    def use_encoding(self, encoding: Mapping[str, Any] | None) -> None:
        if encoding is None:
            raise ValueError("the meaning of the labels' values is missing")
        of_masks = encoding["kind"] == MODE
        self._settled = MaskEncoding.from_json(encoding, self.class_names) if of_masks else Encoding.from_json(encoding)

    def train_counts(self, facts: LabelFacts) -> NDArray[np.int64]:
        encoding = self._encoding
        if isinstance(encoding, MaskEncoding):
            return encoding.train_counts(facts.counts)
        view = as_numbers if encoding.kind == "numbers" else as_colours
        everything, opaque = view(facts) or {}, view(facts, opaque=True) or {}
        totals = encoding.train_counts(opaque)
        totals[IGNORE_INDEX] += sum(everything.values()) - sum(opaque.values())
        return totals
