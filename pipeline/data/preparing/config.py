"""Section `prepare` of params.yaml: which dataset, where it is, how it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.data.datasets import DATASETS
from serving.contract.errors import did_you_mean
from serving.contract.schema import Problems, Require, build


@dataclass(frozen=True)
class PrepareConfig:
    """Which dataset is prepared.

    Attributes:
        dataset: a name of `pipeline.data.datasets.DATASETS`.
        root: the dataset's folder; may hold environment variables (`$CONTRAIL_CAMVID`) and `~`. None for a generated
            dataset.
        options: the dataset's own options (`pipeline/data/<dataset>.py`, `Options`).
        hash: how `dvc repro` notices that files changed: by their names, sizes and `times`, which takes a second for
            100,000 files, or by their `content`, which reads all of it every time.
        skip_unreadable: leave out pairs of which a file cannot be read, with a warning, instead of failing.
        threads: files decoded at once; the result does not depend on it.
    """

    dataset: str = "streets"
    root: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    hash: Literal["times", "content"] = "times"
    skip_unreadable: bool = False
    threads: int = 4

    def __post_init__(self) -> None:
        require = Require()
        require(self.threads >= 1, f"threads: expected at least 1, got {self.threads}")
        if self.dataset not in DATASETS:
            require(False, f"dataset: unknown dataset {self.dataset!r}{did_you_mean(self.dataset, DATASETS)}")
        else:
            dataset = DATASETS.resolve(self.dataset)
            require(
                dataset.generated or self.root is not None,
                f"root: missing; the dataset {self.dataset!r} needs its folder (docs/datasets.md says which)",
            )
            require(
                not dataset.generated or self.root is None,
                f"root: expected none, the dataset {self.dataset!r} is generated; got {self.root!r}",
            )
            problems = Problems()
            build(dataset.Options, self.options, "options", problems)
            for problem in problems:
                require(False, problem)
        require.done()
