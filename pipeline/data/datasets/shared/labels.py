"""From the numbers or colours in label files to train ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError

Colour = tuple[int, int, int]

IGNORE_INDEX = 255
MAX_CLASSES = 254  # 255 is void, and 254 marks "unknown" while a label is decoded

_UNKNOWN = 254


class LabelError(UserError):
    """A label file that can be read but does not hold what its dataset promises (mode or values)."""


class UnreadableError(UserError):
    """A file that cannot be read at all: truncated, not an image, no permission."""


class LabelTable:
    """From the ids in a dataset's label files to train ids.

    Args:
        train_ids: source id -> train id, or `IGNORE_INDEX` for a source id that is void. Ids that are not listed
            are errors: a label holding one is refused instead of trained on.

    Example:
        >>> table = LabelTable({0: 0, 7: 1, 255: IGNORE_INDEX})
        >>> table.apply(np.array([[0, 7, 255]], np.uint8), Path("label.png"))
        array([[  0,   1, 255]], dtype=uint8)
    """

    def __init__(self, train_ids: Mapping[int, int]) -> None:
        assert all(-1 <= source < 65536 for source in train_ids), "source ids are at most 16 bits, or -1"
        assert all(0 <= train < MAX_CLASSES or train == IGNORE_INDEX for train in train_ids.values())
        self.train_ids = dict(train_ids)
        # The last two entries: always unknown, and -1, which arrays hold for void.
        self._lookup = np.full(max(256, max(train_ids) + 1) + 2, _UNKNOWN, dtype=np.uint8)
        for source, train in train_ids.items():
            self._lookup[source] = train

    def apply(self, ids: NDArray[np.integer], path: Path) -> NDArray[np.uint8]:
        """Translate `ids [H,W]` to train ids, uint8.

        Raises:
            LabelError: an id outside the table; the message names `path` and every such id.
        """
        train: NDArray[np.uint8]
        if ids.dtype == np.uint8:
            narrow = ids.view(np.uint8)  # for the type checker: it is that already
            if self._are_train_ids(narrow):
                return narrow
            # bytes.translate looks up twice as fast as an index array, which numpy widens to 64 bits first.
            translated = ids.tobytes().translate(self._lookup[:256].tobytes())
            train = np.frombuffer(translated, dtype=np.uint8).reshape(ids.shape)
        else:
            unknown_entry = len(self._lookup) - 2
            train = self._lookup[np.where((ids < -1) | (ids > unknown_entry), unknown_entry, ids)]
        if (train == _UNKNOWN).any():
            unknown = np.unique(ids[train == _UNKNOWN]).tolist()
            raise LabelError(f"{path}: unknown label {_listed(map(str, unknown))}; expected {self._expected()}")
        return train

    def _are_train_ids(self, ids: NDArray[np.uint8]) -> bool:
        """Whether a translation would change nothing: found in a tenth of the time that it takes."""
        classes = len(self.train_ids) - (IGNORE_INDEX in self.train_ids)
        if self.train_ids.items() - {(index, index) for index in (*range(classes), IGNORE_INDEX)}:
            return False
        if IGNORE_INDEX in self.train_ids:
            ids = ids + np.uint8(1)  # void wraps round to 0, the classes to 1..C
            classes += 1
        return bool(ids.max(initial=0) < classes)

    def _expected(self) -> str:
        """The known ids as ranges: `0 to 10, 255`."""
        runs: list[list[int]] = []
        for source in sorted(self.train_ids):
            if runs and source == runs[-1][-1] + 1:
                runs[-1].append(source)
            else:
                runs.append([source])
        return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


class ColourTable:
    """From the colours in a dataset's label files to train ids.

    Args:
        train_ids: RGB -> train id, or `IGNORE_INDEX` for a colour that is void. Other colours are errors.
    """

    def __init__(self, train_ids: Mapping[tuple[int, int, int], int]) -> None:
        assert all(0 <= train < MAX_CLASSES or train == IGNORE_INDEX for train in train_ids.values())
        self.train_ids = dict(train_ids)
        # One byte for each of the 2^24 colours: a single gather per label, and only the few real colours get cached.
        self._lookup = np.full(1 << 24, _UNKNOWN, dtype=np.uint8)
        for (red, green, blue), train in train_ids.items():
            self._lookup[(red << 16) | (green << 8) | blue] = train

    def apply(self, colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        """Translate `colours [H,W,3]` to train ids `[H,W]`, uint8.

        Raises:
            LabelError: a colour outside the table; the message names `path` and every such colour.
        """
        wide = colours.astype(np.uint32)
        codes = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        train: NDArray[np.uint8] = self._lookup.take(codes)
        if (train == _UNKNOWN).any():
            unknown = np.unique(codes[train == _UNKNOWN]).tolist()
            shown = [f"({code >> 16}, {code >> 8 & 255}, {code & 255})" for code in unknown]
            raise LabelError(
                f"{path}: unknown label colour {_listed(shown)}; expected one of the {len(self.train_ids)} "
                "colours of the dataset"
            )
        return train


def _listed(values: Iterable[str], limit: int = 12) -> str:
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more
