"""What is in a folder: layout, classes, sizes, bits, orientations, problems, and the section to paste."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from rich.progress import Progress

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.folder.dataset import Folder
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset
from pipeline.data.datasets.shared.facts import Findings
from pipeline.data.describing.class_lines import lines_of_values, listed_classes
from pipeline.data.describing.guessing import Guess, guess_dataset
from pipeline.data.preparing.checking import SoundPair, check_pair
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.looking import Look, look_at
from serving.contract.errors import UserError
from serving.images.decoding import SILENCE

_PLACEHOLDER = ("class0", "class1")  # until the labels have been looked at


@dataclass(frozen=True)
class ClassShare:
    """One class.

    Attributes:
        name: of it.
        shares: split -> share in [0,1] of its labelled pixels.
        images: how many images that were looked at show it.
    """

    name: str
    shares: Mapping[str, float]
    images: int


@dataclass(frozen=True)
class Description:
    """A folder, described.

    Attributes:
        root: the folder.
        dataset: what it is read as.
        why: it seems to be that.
        classes_from: where the names of the classes are from.
        images: split -> pairs that there are.
        looked_at: pairs that were looked at.
        classes: empty where it cannot be told what labels mean.
        image_sizes: `WIDTHxHEIGHT` -> images.
        image_kinds: format, mode and bits -> images.
        label_kinds: mode -> labels.
        turned: images and labels with an EXIF orientation.
        problems: kind -> lines; with any, `prepare` refuses.
        warnings: `kind: what`.
        notes: `kind: what`.
        section: the section `prepare` of params.yaml.
    """

    root: Path
    dataset: str
    why: str
    classes_from: str
    images: Mapping[str, int]
    looked_at: int
    classes: tuple[ClassShare, ...]
    image_sizes: Mapping[str, int]
    image_kinds: Mapping[str, int]
    label_kinds: Mapping[str, int]
    turned: tuple[int, int]
    problems: Mapping[str, list[str]]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    section: Mapping[str, Any]

    def section_text(self) -> str:
        """The section as it is pasted into params.yaml."""
        text: str = yaml.safe_dump({"prepare": dict(self.section)}, sort_keys=False, allow_unicode=True, width=100)
        return text


@dataclass(frozen=True)
class Described:
    """A description, and what pictures of it are drawn from.

    Attributes:
        description: of the folder.
        dataset: that reads its labels.
        look: what was seen.
    """

    description: Description
    dataset: Dataset
    look: Look


def describe_folder(root: Path, bar: Progress, *, limit: int | None, threads: int) -> Described:
    """Look at a folder and say what it seems to be.

    Args:
        root: the folder.
        bar: gets a task.
        limit: at most so many pairs of each split are looked at; None for all.
        threads: files read at once.

    Raises:
        UserError: no such folder, or nothing in it that could be trained on.
    """
    guess = guess_dataset(root)
    options, classes_from = _with_classes(root, guess)
    dataset = DATASETS.resolve(guess.dataset)(root, options)
    config = PrepareConfig(dataset=guess.dataset, root=str(root.resolve()), options=options, threads=threads)
    layout = dataset.layout_problems()
    if layout:
        nothing: dict[str, list[Any]] = {split: [] for split in SPLITS}
        look = Look(nothing, nothing, Findings({"layout": layout}))
    else:
        look = look_at(dataset, config, bar, limit=limit)
    return Described(_describe(root, guess, classes_from, dataset, config, look), dataset, look)


def _with_classes(root: Path, guess: Guess) -> tuple[dict[str, Any], str]:
    """The options with classes, where the folder does not say what they are; and where they are from."""
    options = dict(guess.options)
    if guess.dataset != "folder":
        return options, "the dataset"
    if (root / "classes.txt").is_file():
        return options, "classes.txt"
    found = listed_classes(root)
    if found is not None:
        lines, path = found
        return options | {"classes": lines}, path.relative_to(root).as_posix()
    trial = Folder(root, options | {"classes": list(_PLACEHOLDER)})
    trial_pairs = [pair for split in SPLITS for pair in trial.pairs(split)]
    chosen = (
        [trial_pairs[index * len(trial_pairs) // 200] for index in range(200)]
        if len(trial_pairs) > 200
        else trial_pairs
    )
    facts = [
        checked.facts for checked in (check_pair(trial, pair) for pair in chosen) if isinstance(checked, SoundPair)
    ]
    lines = lines_of_values(facts)
    if len(lines) < 2:
        return options | {"classes": list(_PLACEHOLDER)}, "nowhere: these two are placeholders"
    return options | {"classes": lines}, "the labels: the names are invented, change them"


def _describe(
    root: Path, guess: Guess, classes_from: str, dataset: Dataset, config: PrepareConfig, look: Look
) -> Description:
    pairs = [pair for split in SPLITS for pair in look.sound[split]]
    kinds: Counter[str] = Counter(_kind(dataset.root / pair.entry.image) for pair in pairs)
    sizes = Counter(f"{pair.entry.width}x{pair.entry.height}" for pair in pairs)
    label_kinds = Counter(_label_kind(pair) for pair in pairs)
    section = {"dataset": config.dataset, "root": config.root, "options": dict(config.options)}
    return Description(
        root=root,
        dataset=guess.dataset,
        why=guess.why,
        classes_from=classes_from,
        images={} if "layout" in look.findings.problems else {split: len(dataset.pairs(split)) for split in SPLITS},
        looked_at=len(pairs),
        classes=_classes(dataset.class_names, look),
        image_sizes=dict(sizes.most_common()),
        image_kinds=dict(kinds.most_common()),
        label_kinds=dict(label_kinds.most_common()),
        turned=(
            sum(pair.orientation != 1 for pair in pairs),
            sum(pair.facts.orientation != 1 for pair in pairs),
        ),
        problems=look.findings.problems,
        warnings=tuple(look.findings.warnings),
        notes=tuple(look.findings.notes),
        section=section,
    )


def _classes(names: Sequence[str], look: Look) -> tuple[ClassShare, ...]:
    every = [counts for split in SPLITS for counts in look.counts[split]]
    if not every:
        return ()
    seen = np.sum([counts > 0 for counts in every], axis=0)
    shares = {
        split: pixels / max(1, int(pixels.sum()))
        for split, pixels in look.class_pixels(len(names)).items()
        if look.counts[split]
    }
    return tuple(
        ClassShare(name, {split: float(share[index]) for split, share in shares.items()}, int(seen[index]))
        for index, name in enumerate(names)
    )


def _kind(path: Path) -> str:
    """`PNG, RGB, 8 bits`."""
    try:
        with SILENCE, Image.open(path) as image:
            tiles: Any = getattr(image, "tile", [])
            deep = image.mode.startswith(("I", "F")) or (tiles and ";16" in str(tiles[0][3]))
            return f"{image.format}, {image.mode}, {16 if deep else 8} bits"
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _label_kind(pair: SoundPair) -> str:
    mode = pair.facts.mode or "as the dataset publishes them"
    return f"{mode}, with a palette" if pair.facts.palette_key is not None else mode


def to_json(description: Description) -> dict[str, Any]:
    """For `--json`."""
    content = dataclasses.asdict(description)
    return content | {"root": str(description.root), "section": dict(description.section)}
