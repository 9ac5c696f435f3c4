"""Check every pair of a dataset and write what the later stages read: all problems at once, or a whole result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset
from pipeline.data.datasets.shared.prepared import FILE_NAME, SCHEMA, content_sha256, resolve_root
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.looking import Look, look_at
from serving.contract.errors import UserError
from serving.contract.files import atomic_dir

MAX_LISTED = 1000
"""Lines shown per kind of problem; beyond that the rest is counted."""


@dataclass(frozen=True)
class Preparation:
    """What `prepare` did.

    Attributes:
        folder: where it wrote.
        pairs: split -> number of pairs.
        unlabelled: number of images without labels.
        sha256: of the prepared dataset.
        warnings: what is odd but may be meant, `kind: what`; they reach the report, and the gate judges them.
        notes: what was certain and taken so, `kind: what`.
    """

    folder: Path
    pairs: dict[str, int]
    sha256: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unlabelled: int = 0


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
    if output.is_symlink():
        raise UserError(f"{output}: a link; expected a folder: name the one that it leads to, or remove it")
    if output.exists() and not _is_replaceable(output):
        raise UserError(f"{output}: exists and is not a prepared dataset; choose another folder or remove it")
    with atomic_dir(output) as partial:
        try:
            content, look = _build(dataset_class, config, partial, strict, progress)
        except OSError as error:  # a full disk, most likely; images and labels that cannot be read are findings
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"{output}: nothing was written: {error.strerror or error}{where}") from error
    return Preparation(
        folder=output,
        pairs={split: len(content["splits"][split]) for split in SPLITS},
        sha256=content["sha256"],
        warnings=tuple(look.findings.warnings),
        notes=tuple(look.findings.notes),
        unlabelled=len(look.unlabelled),
    )


def _build(
    dataset_class: type[Dataset], config: PrepareConfig, partial: Path, strict: bool, progress: bool
) -> tuple[dict[str, Any], Look]:
    """Write the prepared dataset into an empty folder; see `prepare`."""
    with progress_bar(progress) as bar:
        root = resolve_root(config.root)
        if dataset_class.generated:
            root = partial / config.dataset
        dataset = dataset_class(root, config.options)
        if dataset.generated:
            task = bar.add_task(f"generate {config.dataset}", total=None)
            dataset.generate(dataset.root, lambda done, total: bar.update(task, completed=done, total=total))
        layout = dataset.layout_problems()
        if layout:
            raise UserError(list_problems(config.dataset, {"layout (docs/datasets.md shows it)": layout}))
        look = look_at(dataset, config, bar, strict=strict)
    if look.findings.problems:
        raise UserError(list_problems(config.dataset, look.findings.problems))
    content = _content(dataset, config, look)
    (partial / FILE_NAME).write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    return content, look


def _content(dataset: Dataset, config: PrepareConfig, look: Look) -> dict[str, Any]:
    pixels = look.class_pixels(len(dataset.class_names))
    labelled = int(pixels["train"].sum())
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "dataset": config.dataset,
        "options": asdict(dataset.options),
        "class_names": list(dataset.class_names),
        "palette": [list(colour) for colour in dataset.palette],
        "ignore_index": dataset.ignore_index,
        "class_pixels": {split: [int(count) for count in pixels[split]] for split in SPLITS},
        "class_frequencies": [int(count) / max(labelled, 1) for count in pixels["train"]],
        "encoding": dataset.encoding,
        "warnings": look.findings.warnings,
        "notes": look.findings.notes,
        "splits": {split: [entry.to_json() for entry in entries] for split, entries in look.entries.items()},
    }
    if look.unlabelled:  # of datasets without any, the file and its hash are as before there was this key
        content["unlabelled"] = [entry.to_json() for entry in look.unlabelled]
    return {**content, "sha256": content_sha256(content)}


def list_problems(name: str, problems: Mapping[str, list[str]]) -> str:
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


@contextmanager
def progress_bar(show: bool) -> Iterator[Progress]:
    """A bar on standard error, or one that nobody sees."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not show) as bar:
        yield bar
