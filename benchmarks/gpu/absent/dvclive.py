"""Stands in for DVCLive where it is not installed: the steps on a bare GPU machine need no curves."""

from __future__ import annotations

from typing import Any


class Live:
    """Takes what a training logs, and keeps nothing."""

    def __init__(self, **_options: Any) -> None:
        self.step = 0

    def log_metric(self, name: str, value: float, *, timestamp: bool = False) -> None:
        """Nothing is kept."""

    def make_summary(self) -> None:
        """Nothing is written."""

    def end(self) -> None:
        """Nothing is open."""
