"""Check every pair of a dataset and write what the later stages read: all problems at once, or a whole result."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
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
from pipeline.data.datasets.shared.labels import UnreadableError
from pipeline.data.prepared import FILE_NAME, SCHEMA, Entry, content_sha256, resolve_root
from pipeline.data.preparing.config import PrepareConfig
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.images.image_io import read_image

MAX_LISTED = 1000
"""Lines shown per kind of problem; beyond that the rest is counted."""


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did.

    Attributes:
        folder: where it wrote.
        pairs: split -> number of pairs.
        sha256: of the prepared dataset.
        warnings: what is odd but not wrong, one line each.
    """

    folder: Path
    pairs: dict[str, int]
    sha256: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Checked:
    """A pair after the check: an entry with its class counts, or a problem of some kind."""

    entry: Entry | None = None
    pixels: NDArray[np.int64] | None = None
    kind: str = ""
    problem: str = ""


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
            content, warnings = _check(dataset, config, strict, bar)
        (partial / FILE_NAME).write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        partial.chmod(0o755)  # mkdtemp makes it private
        _replace(output, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Preparation(
        folder=output,
        pairs={split: len(content["splits"][split]) for split in SPLITS},
        sha256=content["sha256"],
        warnings=tuple(warnings),
    )


def _check(dataset: Dataset, config: PrepareConfig, strict: bool, bar: Progress) -> tuple[dict[str, Any], list[str]]:
    """Check layout, names and every pair; returns the content of dataset.json and the warnings."""
    layout = dataset.layout_problems()
    if layout:
        raise UserError(_listing(config.dataset, {"layout (docs/datasets.md shows it)": layout}))
    pairs = {split: dataset.pairs(split) for split in SPLITS}
    problems: dict[str, list[str]] = {}
    warnings: list[str] = []
    for split in ("train", "val"):
        if not pairs[split]:
            problems.setdefault("empty split", []).append(f"{split}: no image found under {dataset.root}")
    for split in SPLITS:
        _find_duplicate_names(split, pairs[split], problems)
    entries: dict[str, list[Entry]] = {}
    pixels = {split: np.zeros(len(dataset.class_names), dtype=np.int64) for split in SPLITS}
    task = bar.add_task(f"check {config.dataset}", total=sum(map(len, pairs.values())))
    with ThreadPoolExecutor(config.threads) as pool:
        for split in SPLITS:
            entries[split] = []
            for checked in pool.map(lambda pair: _check_pair(dataset, pair), pairs[split]):
                bar.advance(task)
                if checked.entry is not None and checked.pixels is not None:
                    entries[split].append(checked.entry)
                    pixels[split] += checked.pixels
                elif checked.kind == "unreadable" and config.skip_unreadable and not strict:
                    warnings.append(f"skipped unreadable pair: {checked.problem}")
                else:
                    problems.setdefault(checked.kind, []).append(checked.problem)
    for split in ("train", "val"):
        if pairs[split] and not entries[split] and not problems:
            problems["empty split"] = [f"{split}: none of its {len(pairs[split])} pairs can be read"]
    overlap = _overlap(entries)
    unseen = [
        f"{name}: no training pixel"
        for name, count in zip(dataset.class_names, pixels["train"], strict=True)
        if not count
    ]
    if strict and overlap:
        problems["split overlap"] = overlap
    if problems:
        raise UserError(_listing(config.dataset, problems))
    warnings += [f"split overlap: {line}" for line in overlap] + [f"unseen class: {line}" for line in unseen]
    return _content(dataset, config, entries, pixels), warnings


def _check_pair(dataset: Dataset, pair: Pair) -> _Checked:
    for what, path in (("image", pair.image), ("label", pair.label)):
        if not path.is_file():
            other = pair.label if what == "image" else pair.image
            return _Checked(kind=f"missing {what}", problem=f"{path} (for {other.name})")
    try:
        image = read_image(pair.image)
        image_sha256 = file_sha256(pair.image)
    except (UserError, OSError) as error:
        return _Checked(kind="unreadable", problem=_with_path(error, pair.image))
    try:
        label = dataset.decode_label(pair.label)
        label_sha256 = file_sha256(pair.label)
    except (UnreadableError, OSError) as error:
        return _Checked(kind="unreadable", problem=_with_path(error, pair.label))
    except UserError as error:
        return _Checked(kind="bad label", problem=_with_path(error, pair.label))
    height, width = label.shape
    if image.shape[:2] != (height, width):
        got = f"image {image.shape[1]}x{image.shape[0]}, label {width}x{height}"
        return _Checked(kind="size mismatch", problem=f"{pair.image}: {got} ({pair.label})")
    classes = len(dataset.class_names)
    entry = Entry(
        name=pair.name,
        image=_relative(pair.image, dataset.root),
        label=_relative(pair.label, dataset.root),
        image_sha256=image_sha256,
        label_sha256=label_sha256,
        height=height,
        width=width,
        sequence=pair.sequence,
    )
    return _Checked(entry=entry, pixels=np.bincount(label.reshape(-1), minlength=256)[:classes])


def _find_duplicate_names(split: str, pairs: list[Pair], problems: dict[str, list[str]]) -> None:
    files_of: dict[str, set[Path]] = {}
    counts: dict[str, int] = {}
    for pair in pairs:
        files_of.setdefault(pair.name, set()).update((pair.image, pair.label))
        counts[pair.name] = counts.get(pair.name, 0) + 1
    for name, count in counts.items():
        if count > 1:
            shown = ", ".join(str(path) for path in sorted(files_of[name]))
            problems.setdefault("duplicate name", []).append(f"{name} in {split}: {shown}")


def _overlap(entries: dict[str, list[Entry]]) -> list[str]:
    """Images with the same bytes in two splits: what is trained on must not be what is measured on."""
    first: dict[str, tuple[str, Entry]] = {}
    found = []
    for split in SPLITS:
        for entry in entries[split]:
            known_split, known = first.setdefault(entry.image_sha256, (split, entry))
            if known_split != split:
                found.append(f"{known.image} ({known_split}) and {entry.image} ({split}) are the same image")
    return found


def _content(
    dataset: Dataset, config: PrepareConfig, entries: dict[str, list[Entry]], pixels: dict[str, NDArray[np.int64]]
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
        "splits": {split: [asdict(entry) for entry in entries[split]] for split in SPLITS},
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


def _with_path(error: Exception, path: Path) -> str:
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"


def _relative(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


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
