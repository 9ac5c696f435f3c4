"""What ranks but the first report to: nothing is written, since all would write the same."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any


class SilentRecorder:
    """Takes what `TrainingRecorder` takes.

    Args:
        folder: of the states, for messages.
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
        """Where the first rank writes what is known."""
        return self._folder / "not_finite.json"
