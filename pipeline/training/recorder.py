"""What a training shows and keeps while it runs: DVCLive curves, a progress bar, checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from dvclive import Live
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from torch import Tensor, nn

from pipeline.models.network.weights import save_tensors
from pipeline.models.training_heads.trainee import Trainee
from pipeline.training.checkpoints import TraineeRecord, write_record
from pipeline.training.faults.finite import keep_not_finite
from pipeline.training.resuming.store import Checkpoint, CheckpointStore
from pipeline.training.resuming.tensors import state_tensors, state_values, under
from pipeline.training.state import TrainingState
from serving.contract.errors import UserError
from serving.contract.files import require_writable, write_atomically


class TrainingRecorder:
    """Writes curves under `curves` and states into `store` while it runs, the weights under `folder` at the end alone.

    Args:
        name: the branch, for the progress bar.
        folder: where `best`, `last` and `trainee.json` go.
        curves: DVCLive's folder.
        store: of the states that a resume goes on from.
        term: its buffers are part of the state.
        iterations: length of the training.
        resumed: the state that the training goes on from, or None for a fresh start.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: Path,
        curves: Path,
        store: CheckpointStore,
        term: nn.Module,
        iterations: int,
        resumed: Checkpoint | None = None,
    ) -> None:
        self._folder = folder
        self._curves = curves
        self._store = store
        self._term = term
        self._best: dict[str, Tensor] = dict(under("best.", resumed.tensors)) if resumed else {}
        self._last: dict[str, Tensor] = {}
        self._validated = ""
        self._epochs: list[dict[str, Any]] = list(resumed.state["epochs"]) if resumed else []
        start = resumed.iteration if resumed else 0
        # Whatever is there, from a finished training or from one that went further than its last state, goes.
        shutil.rmtree(curves, ignore_errors=True)
        require_writable(curves)
        for name_, text in (resumed.state["curves"] if resumed else {}).items():
            write_atomically(curves / name_, text.encode())
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
        with _written(self._curves):
            self._live.end()

    def step(self, iteration: int) -> None:
        """Move the progress bar."""
        self._bar.update(self._task, completed=iteration)

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Add a point to every curve."""
        with _written(self._curves):
            self._live.step = iteration
            for name, value in sorted(values.items()):
                self._live.log_metric(name, value, timestamp=False)
            self._live.make_summary()
        if "validation_miou" in values:
            self._validated = f", validation mIoU {values['validation_miou']:.4f}"
        self._bar.update(self._task, shown=f"loss {values['cross_entropy']:.3f}{self._validated}")

    def validated(self, shipped: Trainee, *, best: bool) -> None:
        """Remember the weights of `shipped` as the last ones, and as the best where they are."""
        self._last = {name: value.detach().cpu().clone() for name, value in shipped.state_dict().items()}
        if best or not self._best:
            self._best = self._last

    def save(self, trainee: Trainee, state: TrainingState) -> None:
        """Write the state of `trainee` to go on from, and the curves up to here."""
        files = sorted(path for path in self._curves.rglob("*") if path.is_file())
        curves = {path.relative_to(self._curves).as_posix(): path.read_text(encoding="utf-8") for path in files}
        self._store.save(
            state.progress.iteration,
            state_tensors(trainee, self._term, state, self._best),
            {**state_values(state), "curves": curves, "epochs": self._epochs},
        )

    def time(self, iteration: int, seconds: dict[str, float]) -> None:
        """Remember where the time went."""
        self._epochs.append({"iteration": iteration, "seconds": seconds})

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """For every report of metrics: finished iterations, and seconds per part since the one before."""
        return self._epochs

    def not_finite(self, iteration: int, images: list[str], values: dict[str, float]) -> Path:
        """Write the names of the images of the batch that the losses were not finite on."""
        return keep_not_finite(self._store.folder, iteration, images, values)

    def finish(self, record: TraineeRecord) -> None:
        """Write the weights, and last what says that they are whole."""
        save_tensors(self._best, self._folder / "best.safetensors")
        save_tensors(self._last, self._folder / "last.safetensors")
        write_record(record, self._folder)


@contextmanager
def _written(curves: Path) -> Iterator[None]:
    """What DVCLive raises, in a line. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{curves}: the curves cannot be written: {error.strerror or error}; once they can, the same command goes "
            "on from the last checkpoint"
        ) from error


class SilentRecorder:
    """What ranks but the first report to: takes what `TrainingRecorder` takes, and writes nothing that it writes too.

    Args:
        folder: of the states.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> SilentRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def step(self, iteration: int) -> None:
        """See `pipeline.training.loop.Recorder`, as of all methods here."""

    def metrics(self, iteration: int, values: dict[str, float]) -> None:
        """Nothing."""

    def validated(self, shipped: Any, *, best: bool) -> None:
        """Nothing."""

    def save(self, trainee: Any, state: Any) -> None:
        """Nothing."""

    def time(self, iteration: int, seconds: dict[str, float]) -> None:
        """Nothing."""

    def not_finite(self, iteration: int, images: list[str], values: dict[str, float]) -> Path:
        """Write what the first rank would: this one alone may have seen it."""
        return keep_not_finite(self._folder, iteration, images, values)
