"""Stands in for DVCLive where it is not installed, as on a bare GPU machine: curves in its files, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Live:
    """Writes `DIR/plots/metrics/NAME.tsv`, a line per step."""

    def __init__(self, *, dir: str, **_options: Any) -> None:
        self.step = 0
        self._folder = Path(dir) / "plots" / "metrics"

    def log_metric(self, name: str, value: float, *, timestamp: bool = False) -> None:
        """A value of this step."""
        path = self._folder / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "" if path.exists() else f"step\t{path.stem}\n"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{header}{self.step}\t{value}\n")

    def make_summary(self) -> None:
        """The files are whole after every value."""

    def end(self) -> None:
        """Nothing is open."""
