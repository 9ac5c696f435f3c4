"""How long the parts of a call took, for each thread that calls."""

from __future__ import annotations

import threading


class LastTimings(threading.local):
    """Holds the parts of the last call; every thread sees those of its own.

    Attributes:
        parts: name -> milliseconds.
    """

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
