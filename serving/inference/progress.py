"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 30
_SECONDS_ON_TERMINAL, _SECONDS_ELSEWHERE = 0.1, 30.0


class Progress:
    """Shows the number of images that are through, their rate and the time that is left.

    Args:
        total: number of images; it may grow as a run goes on.
        stream: where to; None: standard error.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total = total
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._bar = False

    def update(self, done: int) -> None:
        """Say that so many are through."""
        now = time.monotonic()
        due = _SECONDS_ON_TERMINAL if self._terminal else _SECONDS_ELSEWHERE
        self.total = max(self.total, done)
        if self.total < 2 or (now - self._shown < due and not (self._terminal and done == self.total)):
            return
        self._shown = now
        text = self._text(done, now - self._start)
        if self._terminal:
            filled = _BAR * done // self.total
            self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {text}")
            self._stream.flush()
            self._bar = True
        else:
            self._stream.write(f"{text}\n")

    def say(self, line: str) -> None:
        """Write a line of its own."""
        self.clear()
        self._stream.write(f"{line}\n")

    def clear(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._bar = False

    def _text(self, done: int, seconds: float) -> str:
        rate = done / seconds if seconds > 0 else 0.0
        left = round((self.total - done) / rate) if rate > 0 else 0
        hours, minutes = divmod(left // 60, 60)
        clock = f"{hours}:{minutes:02}:{left % 60:02}" if hours else f"{minutes}:{left % 60:02}"
        return f"{done} of {self.total} images, {rate:.1f} per second, {clock} left"
