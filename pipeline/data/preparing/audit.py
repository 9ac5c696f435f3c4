"""What the labels of a whole dataset amount to: splits without labels, classes without pixels, images in two splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.dataset import SPLITS, Pair
from pipeline.data.datasets.shared.facts import Findings, listed
from pipeline.data.datasets.shared.names import composed, relative_name
from pipeline.data.datasets.shared.prepared import Entry
from serving.contract.errors import shown
from serving.images.listing import LeftOut, summary

Int64 = NDArray[np.int64]

# What lies beside images and labels and is neither.
_NO_PICTURES = frozenset(
    {".txt", ".json", ".xml", ".csv", ".tsv", ".md", ".yaml", ".yml", ".html", ".log", ".db", ".ini", ".py", ".pdf"}
)


def audit_labels(
    class_names: Sequence[str],
    names: Mapping[str, Sequence[str]],
    counts: Mapping[str, Sequence[Int64]],
    findings: Findings,
    partly: str = "",
) -> None:
    """Judge which classes have pixels where.

    Args:
        class_names: C names.
        names: split -> names of its images.
        counts: split -> labelled pixels `[C]` of each of them.
        findings: a split without a labelled pixel, or a training split of one class only, is a problem; a class without
            pixels and images without labels are warnings.
        partly: behind every line where not all images were looked at, which says so.
    """
    totals: dict[str, Int64] = {}
    for split, pixels in counts.items():
        if not pixels:
            continue
        totals[split] = np.sum(pixels, axis=0)
        empty = [name for name, found in zip(names[split], pixels, strict=True) if not found.any()]
        if len(empty) == len(pixels):
            findings.problem(
                "no labels", f"{split}: none of its {len(pixels)} images has a labelled pixel, all is void{partly}"
            )
        elif empty:
            findings.warn(
                "unlabelled",
                f"{len(empty)} of {len(pixels)} images of {split} are void throughout: {listed(empty, 3)}{partly}",
            )
    train = totals.get("train")
    if train is not None and np.count_nonzero(train) == 1:
        name = class_names[int(np.flatnonzero(train)[0])]
        findings.problem(
            "one class", f"train: all labelled pixels are {name!r}, so that there is nothing to tell apart{partly}"
        )
    for index, name in enumerate(class_names):
        absent = [split for split, total in totals.items() if not total[index]]
        if len(absent) == len(totals):
            findings.warn("unused class", f"{name}: no pixel in any split{partly}")
            continue
        for split in absent:
            if split == "train":
                findings.warn("unseen class", f"{name}: no training pixel{partly}")
            else:
                findings.warn("absent class", f"{name}: no pixel in {split}, and no part in its mIoU{partly}")


def find_duplicate_names(split: str, pairs: Sequence[Pair], findings: Findings) -> None:
    """Two pairs of one name, forms of Unicode (NFC, NFD) aside, are a problem."""
    files_of: dict[str, set[Path]] = {}
    counts: dict[str, int] = {}
    for pair in pairs:
        name = composed(pair.name)
        files_of.setdefault(name, set()).update((pair.image, pair.label))
        counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        if count > 1:
            files = ", ".join(str(path) for path in sorted(files_of[name]))
            findings.problem("duplicate name", shown(f"{name} in {split}: {files}"))


def tell_left_out(left_out: Sequence[LeftOut], root: Path, findings: Findings) -> None:
    """Name what lies in the dataset's folders and is not read, one line for each reason.

    What nobody would expect to be read is a note, everything else a warning.
    """
    harmless: list[LeftOut] = []
    others: list[LeftOut] = []
    for path, reason in left_out:
        expected = reason == "hidden" or Path(path).suffix.lower() in _NO_PICTURES
        (harmless if expected else others).append(LeftOut(relative_name(Path(path), root), reason))
    for line in summary(harmless):
        findings.note("files", line)
    for line in summary(others):
        findings.warn("left out", line)


def find_overlap(entries: Mapping[str, Sequence[Entry]], unlabelled: Sequence[Entry] = ()) -> list[str]:
    """Images with the same bytes in two splits, or in one and among the unlabelled ones.

    What is trained on, with or without labels, must not be what is measured on.
    """
    first: dict[str, tuple[str, Entry]] = {}
    found = []
    for split, images in (*((split, entries[split]) for split in SPLITS), ("unlabelled", unlabelled)):
        for entry in images:
            known_split, known = first.setdefault(entry.image_sha256, (split, entry))
            if known_split != split:
                both = f"{known.image} ({known_split}) and {entry.image} ({split}) are the same image"
                found.append(shown(both))
    return found
