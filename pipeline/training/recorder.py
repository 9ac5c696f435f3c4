"""What a training shows and keeps while it runs: DVCLive curves, a progress bar, checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dvclive import Live
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor

from pipeline.losses.shared.term import LossTerm
from pipeline.models.network.weights import save_tensors
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.checkpoints import save_resume
from pipeline.training.loop import TrainingState
from serving.contract.files import atomic_path


class TrainingRecorder:
    """Writes curves under `curves`, checkpoints `best` and `last` under `folder`, the resume state at `resume_path`.

    Args:
        name: the branch, for the progress bar.
        folder: where the checkpoints go.
        curves: DVCLive's folder.
        resume_path: state of an interrupted training; removed when the training is complete.
        term: its buffers are part of the resume state.
        fingerprint: of everything that determines the training.
        iterations: length of the training.
        best: best weights so far, when resuming.
        start: finished iterations, when resuming.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        curves: Path,
        resume_path: Path,
        term: LossTerm,
        fingerprint: str,
        iterations: int,
        best: Mapping[str, Tensor] | None = None,
        start: int = 0,
    ) -> None:
        self._folder = folder
        self._resume_path = resume_path
        self._term = term
        self._fingerprint = fingerprint
        self._best = dict(best or {})
        self._validated = ""
        if start == 0:
            shutil.rmtree(curves, ignore_errors=True)
        else:
            _cut_curves(curves, start)
        # DVCLive's defaults would rewrite dvc.yaml and make experiments of every run.
        self._live = Live(
            dir=str(curves), resume=start > 0, dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False
        )
        self._bar = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(name, total=iterations, completed=start, shown="")

    def __enter__(self) -> TrainingRecorder:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._live.end()
        if error is None:
            self._resume_path.unlink(missing_ok=True)

    def step(self, iteration: int) -> None:
        """Move the progress bar."""
        self._bar.update(self._task, completed=iteration)

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Add a point to every curve."""
        self._live.step = iteration
        for name, value in sorted(values.items()):
            self._live.log_metric(name, value, timestamp=False)
        self._live.make_summary()
        if "validation_miou" in values:
            self._validated = f", validation mIoU {values['validation_miou']:.4f}"
        self._bar.update(self._task, shown=f"loss {values['cross_entropy']:.3f}{self._validated}")

    def checkpoint(self, trainee: Trainee, shipped: Trainee, state: TrainingState, *, best: bool) -> None:
        """Write `shipped` as `last`, and as `best` when it is, and the state of `trainee` to resume from."""
        weights = {name: value.detach().cpu().clone() for name, value in shipped.state_dict().items()}
        save_tensors(weights, self._folder / "last.safetensors")
        if best or not self._best:
            self._best = weights
            save_tensors(weights, self._folder / "best.safetensors")
        save_resume(
            self._resume_path,
            trainee=trainee,
            best=self._best,
            term=self._term,
            state=state,
            fingerprint=self._fingerprint,
        )


def _cut_curves(curves: Path, last: int) -> None:
    """Take from DVCLive's curves what an interrupted training logged after the state that it resumes from."""
    for path in sorted(curves.glob("plots/metrics/*.tsv")):
        header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if int(row.partition("\t")[0]) <= last]
        with atomic_path(path) as temporary:
            temporary.write_text("".join([header, *kept]), encoding="utf-8")
