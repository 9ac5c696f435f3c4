"""A folder as it lies: its pairs, the split of each, and whatever is neither image nor label."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.data.datasets.folder.layout import Layout, find_layout
from pipeline.data.datasets.folder.meaning.masks import class_of_mask, class_of_name
from pipeline.data.datasets.folder.options import FolderOptions
from pipeline.data.datasets.folder.pairing import LABEL_SUFFIXES, Paired, pair_place
from pipeline.data.datasets.folder.splits import (
    UNLABELLED,
    SplitList,
    assign_by_lists,
    deal,
    doubled_lists,
    find_lists,
    find_unlabelled_list,
)
from pipeline.data.datasets.folder.unlabelled import Unlabelled, images_without_labels, with_labels_all_the_same
from pipeline.data.datasets.shared.dataset import IMAGE_SUFFIXES, LoneImage, Pair
from pipeline.data.datasets.shared.facts import listed
from pipeline.data.datasets.shared.names import relative_name
from pipeline.data.datasets.shared.walking import walk
from serving.contract.errors import shown
from serving.images.listing import LeftOut


@dataclass(frozen=True)
class FolderArrangement:
    """What lies where.

    Attributes:
        root: the dataset's folder.
        options: how it is arranged.
        class_names: as in classes.txt; names of masks may tell them.
    """

    root: Path
    options: FolderOptions
    class_names: tuple[str, ...]

    @cached_property
    def layout(self) -> Layout:
        """Folders of images and labels."""
        return find_layout(self.root, self.options)

    @cached_property
    def masks(self) -> frozenset[Path]:
        """Label files of which several make a label."""
        return frozenset(path for _, paired in self._places for path in paired.masks)

    @cached_property
    def of_objects(self) -> bool:
        """Whether every mask is one object: no name of a mask tells a class."""
        return all(class_of_mask(path, self.class_names) is None for path in self.masks)

    @property
    def left_out(self) -> list[LeftOut]:
        """What is not read, with the reason."""
        files = (pair.image if pair.image.is_file() else pair.label for pair in self._by_split.get(None, []))
        unlisted = [LeftOut(str(file), "in no list of a split") for file in files]
        inside = [] if self._walks_unlabelled else self._unlabelled.left_out
        paired = [each for _, paired in self._places for each in paired.left_out]
        return [*paired, *inside, *unlisted, *self._beside_splits()]

    def pairs(self, split: str) -> list[Pair]:
        """The pairs of a split, sorted by name."""
        return sorted(self._by_split.get(split, []), key=lambda pair: pair.name)

    def unlabelled(self) -> list[LoneImage]:
        """Images without labels, sorted by name."""
        listed_ones = [LoneImage(pair.name, pair.image, pair.sequence) for pair in self._by_split.get(UNLABELLED, [])]
        return sorted([*self._unlabelled.images, *listed_ones], key=lambda image: image.name)

    def problems(self) -> list[str]:
        """What is not as it must be, one line each."""
        found = [*self.layout.problems, *self._loose()]
        if self.layout.problems:
            return found
        if self._lists:
            folder = next(iter(self._lists.values())).path.parent
            missing = [split for split in ("train", "val") if split not in self._lists]
            found += [f"{shown(folder / f'{split}.txt')}: missing list (images of {split})" for split in missing]
            found += doubled_lists(self.root)
        found += self._assigned[1]
        names = [pair.name for _, paired in self._places for pair in paired.pairs]
        pattern = self.options.sequence_pattern
        if pattern and names and not any(map(self._sequence, names)):
            found.append(f"sequence_pattern: {pattern!r} is found in no name, such as {shown(names[0])!r}")
        if self._unlabelled_list and self.layout.is_split:
            found.append(
                f"{shown(self._unlabelled_list.path)}: is not read where folders tell the splits; put these images "
                f"into {shown(self._unlabelled_folder)}"
            )
        inside = (pair for _, each in self._places for pair in each.pairs if self._is_unlabelled(pair))
        found += with_labels_all_the_same(self._unlabelled_folder, inside)
        if self._unlabelled_list:
            found += with_labels_all_the_same(self._unlabelled_list.path, self._by_split.get(UNLABELLED, []))
        return found + list(self._strange_masks())

    @cached_property
    def _places(self) -> list[tuple[str | None, Paired]]:
        """Split, where folders say it, and what is in it."""

        def is_mask_name(text: str) -> bool:
            return class_of_name(text, self.class_names) is not None

        return [
            (place.split, pair_place(place, self.options, is_mask_name, self._sequence)) for place in self.layout.places
        ]

    @property
    def _unlabelled_folder(self) -> Path:
        return self.root / self.options.image_folder / UNLABELLED

    def _is_unlabelled(self, pair: Pair) -> bool:
        """Whether its image lies in the folder of unlabelled ones."""
        return self._unlabelled_folder in pair.image.parents

    @property
    def _walks_unlabelled(self) -> bool:
        """Whether the folder of unlabelled images lies in one that is looked through for pairs."""
        return any(place.images in self._unlabelled_folder.parents for place in self.layout.places)

    @cached_property
    def _unlabelled(self) -> Unlabelled:
        return images_without_labels(self._unlabelled_folder, self._sequence)

    @cached_property
    def _unlabelled_list(self) -> SplitList | None:
        return find_unlabelled_list(self.root)

    @cached_property
    def _lists(self) -> dict[str, SplitList]:
        return {} if self.layout.is_split else find_lists(self.root)

    @cached_property
    def _assigned(self) -> tuple[dict[str, str], list[str]]:
        """Name -> split, or unlabelled, as the lists say, and what is wrong with them."""
        lists = dict(self._lists)
        if self._unlabelled_list is not None and not self.layout.is_split:
            lists[UNLABELLED] = self._unlabelled_list
        names = [pair.name for _, paired in self._places for pair in paired.pairs]
        return assign_by_lists(lists, names, (f"{self.options.image_folder}/",), self.options.image_suffix)

    @cached_property
    def _by_split(self) -> dict[str | None, list[Pair]]:
        """The pairs of every split, and of the unlabelled list; those of None are in no list."""
        found: dict[str | None, list[Pair]] = {}
        for split, paired in self._places:
            pairs = [pair for pair in paired.pairs if not self._is_unlabelled(pair)]
            found.setdefault(split, []).extend(pairs)
        if self.layout.is_split:
            return found
        pairs = found.get(None, [])
        split_of, key = self._assigned[0], "name"
        unlabelled = [pair for pair in pairs if split_of.get(pair.name) == UNLABELLED]
        if not self._lists:
            pairs = [pair for pair in pairs if split_of.get(pair.name) != UNLABELLED]
            split_of = deal(
                sorted({pair.sequence or pair.name for pair in pairs}),
                val_fraction=self.options.val_fraction,
                test_fraction=self.options.test_fraction,
            )
            key = "sequence"
        found = {}
        for pair in pairs:
            found.setdefault(split_of.get(getattr(pair, key) or pair.name), []).append(pair)
        found[UNLABELLED] = unlabelled
        return found

    def _sequence(self, name: str) -> str | None:
        match = re.search(self.options.sequence_pattern, name) if self.options.sequence_pattern else None
        return match.group(1) if match else None

    def _loose(self) -> Iterator[str]:
        """Images and folders beside those of the splits, which would be forgotten."""
        if not self.layout.is_split:
            return
        folders = {place.images for place in self.layout.places}
        for parent in sorted({folder.parent for folder in folders if folder.parent.parent == self.root}):
            for path in sorted(parent.iterdir()):
                picture = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES
                known = path in (*folders, self._unlabelled_folder)
                known |= path.name in (self.options.label_folder, self.options.image_folder)
                if picture and not known and not path.name.startswith("."):
                    what = "a folder" if path.is_dir() else "an image"
                    yield f"{shown(path)}: {what} beside the folders of the splits; move it into one of them"

    def _beside_splits(self) -> Iterator[LeftOut]:
        """Folders of images, and labels, that lie beside those of the splits: `valid/images` beside `val/images`."""
        if not self.layout.is_split:
            return
        folders = {folder for place in self.layout.places for folder in (place.images, place.labels)}
        tops = {self.root / folder.relative_to(self.root).parts[0] for folder in folders}
        for path in sorted(self.root.iterdir()):
            if path.is_dir() and path not in tops and not path.name.startswith("."):
                inner = walk(path / self.options.image_folder).files
                if any(Path(file).suffix.lower() in IMAGE_SUFFIXES for file in inner):
                    yield LeftOut(str(path), "images beside the folders of the splits")
        of_images = {place.images.parent for place in self.layout.places}
        for parent in sorted({place.labels.parent for place in self.layout.places} - of_images):
            for path in sorted(parent.iterdir()):
                label = path.is_dir() or path.suffix.lower() in LABEL_SUFFIXES
                if label and path not in folders and not path.name.startswith("."):
                    yield LeftOut(str(path), "labels beside the folders of the splits")

    def _strange_masks(self) -> Iterator[str]:
        """Masks whose names tell no class, where there are more than two classes or other names do."""
        if not self.masks or (self.of_objects and len(self.class_names) == 2):
            return
        strange = sorted(path for path in self.masks if class_of_mask(path, self.class_names) is None)
        if strange:
            names = listed((relative_name(path, self.root) for path in strange), 3)
            yield f"{len(strange)} masks whose names tell no class of classes.txt: {names}"
