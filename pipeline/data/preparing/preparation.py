"""Check every pair of a dataset and write what the later stages read: all problems at once, or a whole result."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset, Pair
from pipeline.data.datasets.shared.facts import Findings
from pipeline.data.datasets.shared.prepared import FILE_NAME, SCHEMA, Entry, content_sha256, resolve_root
from pipeline.data.preparing.audit import audit_labels, find_duplicate_names, find_overlap, tell_left_out
from pipeline.data.preparing.checking import SoundPair, check_pair
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.image_notes import judge_image_notes, judge_orientations
from pipeline.data.preparing.subsets import choose
from serving.contract.errors import UserError

MAX_LISTED = 1000
"""Lines shown per kind of problem; beyond that the rest is counted."""


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did.

    Attributes:
        folder: where it wrote.
        pairs: split -> number of pairs.
        sha256: of the prepared dataset.
        warnings: what is odd but may be meant, `kind: what`; they reach the report, and the gate judges them.
        notes: what was certain and taken so, `kind: what`.
    """

    folder: Path
    pairs: dict[str, int]
    sha256: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prepare(config: PrepareConfig, output: Path, *, strict: bool = False, progress: bool = False) -> Preparation:
    """Check the dataset and write `output/dataset.json` (and a generated dataset's files under `output/<dataset>/`).

    Everything is built in a temporary folder beside `output` and renamed at the end: `output` is either as it was or
    complete. The bytes written depend on the data and the config alone, not on the machine, the time or the root.

    Args:
        config: which dataset.
        output: folder to write; an earlier prepared folder there is replaced.
        strict: fail on what would only be warned of: splits that share an image, and unreadable pairs that
            `skip_unreadable` would leave out. Classes without a training pixel stay a warning: CamVid has some.
        progress: draw a progress bar on standard error.

    Raises:
        UserError: every problem of the dataset, grouped by kind, with paths.
    """
    dataset_class = DATASETS.resolve(config.dataset)
    if output.exists() and not _is_replaceable(output):
        raise UserError(f"{output}: exists and is not a prepared dataset; choose another folder or remove it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    try:
        with _progress_bar(progress) as bar:
            root = resolve_root(config.root)
            if dataset_class.generated:
                root = partial / config.dataset
            dataset = dataset_class(root, config.options)
            if dataset.generated:
                task = bar.add_task(f"generate {config.dataset}", total=None)
                dataset.generate(dataset.root, lambda done, total: bar.update(task, completed=done, total=total))
            content, findings = _check(dataset, config, strict, bar)
        (partial / FILE_NAME).write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes it private
        _replace(output, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Preparation(
        folder=output,
        pairs={split: len(content["splits"][split]) for split in SPLITS},
        sha256=content["sha256"],
        warnings=tuple(findings.warnings),
        notes=tuple(findings.notes),
    )


def _check(dataset: Dataset, config: PrepareConfig, strict: bool, bar: Progress) -> tuple[dict[str, Any], Findings]:
    """Check layout, names and every pair; returns the content of dataset.json and what was found."""
    layout = dataset.layout_problems()
    if layout:
        raise UserError(_listing(config.dataset, {"layout (docs/datasets.md shows it)": layout}))
    pairs = {split: dataset.pairs(split) for split in SPLITS}
    findings = Findings()
    for split in ("train", "val"):
        if not pairs[split]:
            findings.problem("empty split", f"{split}: no image found under {dataset.root}")
    for split in SPLITS:
        find_duplicate_names(split, pairs[split], findings)
    checked = _check_pairs(dataset, pairs, config, strict, findings, bar)
    for split in ("train", "val"):
        if pairs[split] and not checked[split] and not findings.problems:
            findings.problem("empty split", f"{split}: none of its {len(pairs[split])} pairs can be read")
    everything = [pair for split in SPLITS for pair in checked[split]]
    dataset.settle([pair.facts for pair in everything], findings)
    checked = choose(dataset.options, checked, findings)
    entries = {split: [pair.entry for pair in checked[split]] for split in SPLITS}
    judge_image_notes(((pair.entry.name, pair.image_notes) for pair in everything), findings)
    judge_orientations(
        ((one.entry.name, one.entry.size, one.orientation, one.facts.orientation) for one in everything), findings
    )
    overlap = find_overlap(entries)
    for line in overlap:
        if strict:
            findings.problem("split overlap", line)
        else:
            findings.warn("split overlap", line)
    tell_left_out(dataset.left_out(), dataset.root, findings)
    if findings.problems:
        raise UserError(_listing(config.dataset, findings.problems))
    classes = len(dataset.class_names)
    counts = {
        split: [(pair.entry, dataset.train_counts(pair.facts)[:classes]) for pair in checked[split]] for split in SPLITS
    }
    audit_labels(dataset.class_names, counts, findings)
    if findings.problems:
        raise UserError(_listing(config.dataset, findings.problems))
    nothing = np.zeros(classes, dtype=np.int64)
    pixels = {split: sum((found for _, found in counts[split]), nothing) for split in SPLITS}
    return _content(dataset, config, entries, pixels, findings), findings


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
                    findings.warn("skipped unreadable pair", checked.problem)
                else:
                    findings.problem(checked.kind, checked.problem)
    return sound


def _content(
    dataset: Dataset,
    config: PrepareConfig,
    entries: Mapping[str, list[Entry]],
    pixels: Mapping[str, NDArray[np.int64]],
    findings: Findings,
) -> dict[str, Any]:
    labelled = int(pixels["train"].sum())
    content = {
        "schema": SCHEMA,
        "dataset": config.dataset,
        "options": asdict(dataset.options),
        "class_names": list(dataset.class_names),
        "palette": [list(colour) for colour in dataset.palette],
        "ignore_index": dataset.ignore_index,
        "class_pixels": {split: [int(count) for count in pixels[split]] for split in SPLITS},
        "class_frequencies": [int(count) / max(labelled, 1) for count in pixels["train"]],
        "encoding": dataset.encoding,
        "warnings": findings.warnings,
        "notes": findings.notes,
        "splits": {split: [entry.to_json() for entry in entries[split]] for split in SPLITS},
    }
    return {**content, "sha256": content_sha256(content)}


def _listing(name: str, problems: dict[str, list[str]]) -> str:
    """One message: the number of problems, then each kind with its lines."""
    total = sum(map(len, problems.values()))
    lines = [f"dataset {name}: {total} problem{'s' if total > 1 else ''}; nothing was written"]
    for kind, found in problems.items():
        lines.append(f"  {kind} ({len(found)}):")
        lines += [f"    {line}" for line in found[:MAX_LISTED]]
        if len(found) > MAX_LISTED:
            lines.append(f"    and {len(found) - MAX_LISTED} more")
    if "unreadable" in problems:
        lines.append("  to leave unreadable pairs out, set prepare.skip_unreadable: true")
    return "\n".join(lines)


def _is_replaceable(output: Path) -> bool:
    return output.is_dir() and ((output / FILE_NAME).is_file() or not any(output.iterdir()))


def _replace(output: Path, partial: Path) -> None:
    """Put `partial` in the place of `output`; an earlier folder is moved aside first and removed last."""
    if not output.exists():
        partial.rename(output)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    output.rename(old / output.name)
    try:
        partial.rename(output)
    except OSError:
        (old / output.name).rename(output)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _progress_bar(show: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        yield bar
