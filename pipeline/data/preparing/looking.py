"""Looking at a whole dataset: every pair, what its labels mean, and what they amount to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from pipeline.data.datasets.shared.dataset import SPLITS, Dataset, LoneImage, Pair
from pipeline.data.datasets.shared.facts import Findings
from pipeline.data.datasets.shared.prepared import Entry
from pipeline.data.preparing.audit import audit_labels, find_duplicate_names, find_overlap, tell_left_out
from pipeline.data.preparing.checking import SoundImage, SoundPair, check_image, check_pair
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.image_notes import judge_image_notes, judge_orientations
from pipeline.data.preparing.subsets import choose, left_over
from serving.contract.errors import shown

Item = TypeVar("Item")


@dataclass(frozen=True)
class Look:
    """What was seen of a dataset.

    Attributes:
        sound: split -> its pairs with nothing wrong in them.
        counts: split -> labelled pixels `[C]` of each of these; empty where it is not settled what labels mean.
        findings: problems, warnings and notes.
        unlabelled: what dataset.json says of the images without labels, sorted by name.
    """

    sound: Mapping[str, list[SoundPair]]
    counts: Mapping[str, list[NDArray[np.int64]]]
    findings: Findings
    unlabelled: tuple[Entry, ...] = ()

    @property
    def entries(self) -> dict[str, list[Entry]]:
        """Split -> what dataset.json says of its pairs."""
        return {split: [pair.entry for pair in pairs] for split, pairs in self.sound.items()}

    def class_pixels(self, classes: int) -> dict[str, NDArray[np.int64]]:
        """Split -> labelled pixels `[C]`."""
        nothing = np.zeros(classes, dtype=np.int64)
        return {split: sum(found, nothing) for split, found in self.counts.items()}


def look_at(
    dataset: Dataset, config: PrepareConfig, bar: Progress, *, strict: bool = False, limit: int | None = None
) -> Look:
    """Look at every pair of a dataset whose layout is as it must be.

    Args:
        dataset: which.
        config: how unreadable pairs are taken, and how many threads read.
        bar: gets a task.
        strict: what would only be warned of is a problem: splits that share an image, and unreadable pairs.
        limit: at most so many pairs of each split, and images without labels, are looked at, spread evenly; None for
            all.

    Returns:
        What was seen; nothing is raised for what is wrong with the data.
    """
    every = {split: dataset.pairs(split) for split in SPLITS}
    findings = Findings()
    for split in ("train", "val"):
        if not every[split]:
            findings.problem("empty split", _why_empty(split, every, dataset))
    for split in SPLITS:
        find_duplicate_names(split, every[split], findings)
    pairs = {split: _spread(found, limit) for split, found in every.items()}
    sound = _check_pairs(dataset, pairs, config, strict, findings, bar)
    for split in ("train", "val"):
        if pairs[split] and not sound[split] and not findings.problems:
            findings.problem("empty split", f"{split}: none of its {len(pairs[split])} pairs can be read")
    everything = [pair for split in SPLITS for pair in sound[split]]
    before = findings.count
    dataset.settle([pair.facts for pair in everything], findings)
    settled = findings.count == before
    every_lone = dataset.unlabelled()
    chosen_lone = _spread(every_lone, limit)
    lone = _check_images(dataset, chosen_lone, config, strict, findings, bar)
    all_sound, sound = sound, choose(dataset.options, sound, findings)
    unlabelled = [*left_over(dataset.options, all_sound, sound), *(image.entry for image in lone)]
    unlabelled.sort(key=lambda entry: entry.name)
    notes = [(pair.entry.name, pair.image_notes) for pair in everything]
    judge_image_notes([*notes, *((image.entry.name, image.image_notes) for image in lone)], findings)
    judge_orientations(
        ((one.entry.name, one.entry.size, one.orientation, one.facts.orientation) for one in everything), findings
    )
    for line in find_overlap({split: [pair.entry for pair in sound[split]] for split in SPLITS}, unlabelled):
        (findings.problem if strict else findings.warn)("split overlap", line)
    tell_left_out(dataset.left_out(), dataset.root, findings)
    classes = len(dataset.class_names)
    counts: dict[str, list[NDArray[np.int64]]] = {split: [] for split in SPLITS}
    if settled:
        counts = {split: [dataset.train_counts(pair.facts)[:classes] for pair in sound[split]] for split in SPLITS}
        if not findings.problems:  # else what is missing would be called a class without pixels
            names = {split: [pair.entry.name for pair in sound[split]] for split in SPLITS}
            there, looked_at = (sum(map(len, found.values())) for found in (every, pairs))
            partly = f" (of {there} images, {looked_at} were looked at)" if looked_at < there else ""
            audit_labels(dataset.class_names, names, counts, findings, partly)
    if unlabelled:
        count = len(unlabelled) + len(every_lone) - len(chosen_lone)
        findings.note("unlabelled", f"{count} images without labels are listed; they are never scored")
    return Look(sound, counts, findings, tuple(unlabelled))


def _check_pairs(
    dataset: Dataset,
    pairs: Mapping[str, list[Pair]],
    config: PrepareConfig,
    strict: bool,
    findings: Findings,
    bar: Progress,
) -> dict[str, list[SoundPair]]:
    """Every pair that is sound, with the facts of its label and the image's EXIF orientation."""
    sound: dict[str, list[SoundPair]] = {}
    task = bar.add_task(f"check {config.dataset}", total=sum(map(len, pairs.values())))
    with ThreadPoolExecutor(config.threads) as pool:
        for split in SPLITS:
            sound[split] = []
            for checked in pool.map(lambda pair: check_pair(dataset, pair), pairs[split]):
                bar.advance(task)
                if isinstance(checked, SoundPair):
                    sound[split].append(checked)
                elif checked.kind == "unreadable" and config.skip_unreadable and not strict:
                    findings.warn("skipped unreadable pair", _placed(checked.problem, dataset))
                else:
                    findings.problem(checked.kind, checked.problem)
    return sound


def _check_images(
    dataset: Dataset, images: list[LoneImage], config: PrepareConfig, strict: bool, findings: Findings, bar: Progress
) -> list[SoundImage]:
    """Every image without a label that is sound."""
    task = bar.add_task("check unlabelled images", total=len(images), visible=bool(images))
    sound: list[SoundImage] = []
    with ThreadPoolExecutor(config.threads) as pool:
        for checked in pool.map(lambda image: check_image(dataset, image), images):
            bar.advance(task)
            if isinstance(checked, SoundImage):
                sound.append(checked)
            elif config.skip_unreadable and not strict:
                findings.warn("skipped unreadable image", _placed(checked.problem, dataset))
            else:
                findings.problem(checked.kind, checked.problem)
    return sound


def _why_empty(split: str, every: Mapping[str, list[Pair]], dataset: Dataset) -> str:
    others = {other: len(found) for other, found in every.items() if found}
    if not others:
        return f"{split}: no image found under {dataset.root}"
    if sum(others.values()) == 1:
        return (
            f"{split}: the only image with a label is in {next(iter(others))}; expected one to train on and one to "
            "validate on at least"
        )
    told = f"{split}: no image of this split found under {dataset.root}, and " + " and ".join(
        f"{count} of {other}" for other, count in others.items()
    )
    sequences = {pair.sequence for found in every.values() for pair in found}
    if len(sequences) == 1 and None not in sequences:
        told += f"; all are of one sequence, {shown(sequences.pop())!r}, which stays in one split as a whole"
    return told


def _placed(problem: str, dataset: Dataset) -> str:
    """A problem with files called by their places in the dataset: a warning must not depend on where that lies."""
    return problem.replace(f"{shown(dataset.root)}{os.sep}", "")


def _spread(pairs: Sequence[Item], limit: int | None) -> list[Item]:
    if limit is None or len(pairs) <= limit:
        return list(pairs)
    return [pairs[index * len(pairs) // limit] for index in range(limit)]
