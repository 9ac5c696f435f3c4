"""What became of all images of a run, in memory that hardly grows with their number."""

from __future__ import annotations

import time
from array import array
from collections import Counter

from serving.contract.errors import shown
from serving.images.listing import LeftOut, summary
from serving.inference.carrying import Record
from serving.inference.planning import OWN_RESULT

_NAMES = 3


class Tally:
    """Counts records and remembers what is said at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.engine_failed = 0
        self._left_out: list[LeftOut] = []
        self._notes: dict[str, tuple[int, list[str]]] = {}
        self._timings: dict[str, array[float]] = {}
        self._start = time.monotonic()

    def add(self, record: Record) -> None:
        """Count one image."""
        self.counts[record.status] += 1
        self.engine_failed += record.by_engine
        if record.status == "left out":
            self._left_out.append(LeftOut(record.job.image.path, OWN_RESULT))
        for note in record.notes:
            count, names = self._notes.get(note, (0, []))
            if count < _NAMES:
                names.append(shown(record.job.name))
            self._notes[note] = count + 1, names
        if record.status == "done":
            for part, value in record.timings_ms.items():
                self._timings.setdefault(part, array("f")).append(value)

    @property
    def through(self) -> int:
        """Images that are through, whatever became of them."""
        return self.counts.total()

    @property
    def status(self) -> int:
        """The command's exit status."""
        return 3 if self.engine_failed else 1 if self.counts["failed"] else 0

    def notes(self) -> list[str]:
        """What is said of single images, a line for each kind."""
        lines = summary(self._left_out)
        for note, (count, names) in sorted(self._notes.items()):
            more = f" and {count - _NAMES} more" if count > _NAMES else ""
            lines.append(f"{count} {note}: {', '.join(names)}{more}")
        return lines

    def result(self, total: int, output: str) -> str:
        """What is said at the end: how many of how many, how fast, and where the time went."""
        done, skipped = self.counts["done"], self.counts["skipped"]
        line = f"{done} of {total - skipped - self.counts['left out']} images in {shown(output)}"
        if skipped:
            line += f", {skipped} skipped, done before"
        if done:
            rate = done / max(time.monotonic() - self._start, 1e-9)
            parts = ", ".join(f"{part} {_median(values):.1f}" for part, values in self._timings.items())
            line += f"; {rate:.2f} images per second; median ms per image: {parts}"
        return line


def _median(values: array[float]) -> float:
    """As NumPy's and `statistics.median`, either of which imports more than the whole of a run of one image needs."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
