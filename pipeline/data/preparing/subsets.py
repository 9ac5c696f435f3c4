"""Which of the images that were checked are prepared: without one recording, or a few of those to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from pipeline.data.datasets.shared.dataset import SubsetOptions
from pipeline.data.datasets.shared.facts import Findings
from pipeline.data.datasets.shared.names import composed
from pipeline.data.datasets.shared.prepared import Entry
from pipeline.data.preparing.checking import SoundPair
from serving.contract.errors import did_you_mean


def choose(
    options: SubsetOptions, checked: Mapping[str, list[SoundPair]], findings: Findings
) -> dict[str, list[SoundPair]]:
    """The pairs of every split by the options; test is always the published one.

    Args:
        options: of the dataset.
        checked: split -> its sound pairs. All are checked, so that what labels mean never depends on the choice.
        findings: no such recording among the training images, or fewer of them than are asked for, is a problem.
    """
    chosen = dict(checked)
    if options.hold_out is not None:
        held_out = [pair for pair in checked["train"] if pair.entry.sequence == options.hold_out]
        if held_out and len(held_out) == len(checked["train"]):
            findings.problem(
                "options", f"hold_out: the recording {options.hold_out!r} is all that there is to train on"
            )
        elif held_out:
            chosen["train"] = [pair for pair in checked["train"] if pair.entry.sequence != options.hold_out]
            chosen["val"] = held_out
            findings.note(
                "held out",
                f"val is the recording {options.hold_out!r} of the training images, {len(held_out)} images, in place "
                f"of the published {len(checked['val'])}",
            )
        else:
            recordings = {pair.entry.sequence for pair in checked["train"]} - {None}
            findings.problem(
                "options",
                f"hold_out: no training image is of the recording {options.hold_out!r}"
                f"{did_you_mean(options.hold_out, map(str, recordings))}",
            )
    there = chosen["train"]
    if options.train_images is not None and options.train_images > len(there):
        findings.problem(
            "options",
            f"train_images: expected at most {len(there)}, as many as there are to train on, "
            f"got {options.train_images}",
        )
    elif options.train_images is not None:
        chosen["train"] = _drawn(there, options.train_images, options.subset_seed)
        findings.note(
            "subset", f"{options.train_images} of {len(there)} training images, drawn by seed {options.subset_seed}"
        )
    return chosen


def left_over(
    options: SubsetOptions, checked: Mapping[str, list[SoundPair]], chosen: Mapping[str, list[SoundPair]]
) -> list[Entry]:
    """The training images that a subset leaves over, without their labels; a held-out recording is not among them.

    Args:
        options: of the dataset.
        checked: split -> its sound pairs.
        chosen: the same, as `choose` gave it.
    """
    if options.train_images is None:
        return []
    taken = {pair.entry.name for pair in chosen["train"]}
    if options.hold_out is not None:
        taken |= {pair.entry.name for pair in checked["train"] if pair.entry.sequence == options.hold_out}
    return [pair.entry.without_label() for pair in checked["train"] if pair.entry.name not in taken]


def _drawn(pairs: Sequence[SoundPair], count: int, seed: int) -> list[SoundPair]:
    """`count` pairs, in their order: those whose names, hashed with the seed, come first. Nothing else matters."""

    def rank(pair: SoundPair) -> bytes:
        return hashlib.sha256(f"{seed} {composed(pair.entry.name)}".encode("utf-8", "surrogateescape")).digest()

    drawn = {pair.entry.name for pair in sorted(pairs, key=rank)[:count]}
    return [pair for pair in pairs if pair.entry.name in drawn]
