"""SIGTERM ends a training in order: after the step it is in, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM


class TrainingStopped(Exception):  # noqa: N818 - no error: it was asked for
    """The training was asked to stop, and its state is kept."""


@contextmanager
def stop_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGTERM only makes the given function return true; a second one kills.

    Python sets handlers in the main thread alone: in any other one signals do what they did before.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
