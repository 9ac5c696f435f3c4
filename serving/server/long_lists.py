"""Long lists of whole numbers in JSON, read in pieces: Python runs other threads between pieces only.

Read at once, 50 MB of nested lists keep the event loop, and so the probes, waiting for two seconds, and 50 MB of empty
lists for eight, in which they become a gigabyte.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.server.config import Refusal

PIECE = 2**16  # bytes that are read at once
MOST_AT_ONCE = 2**18  # bytes beside the lists: 40 ms at worst
_MOST_KEYS = 100  # of this name that are looked at; a request has one
_LOOK = 2**20  # bytes that are searched at once

_DATA = re.compile(rb'"data"\s*:\s*(?=\[)')
_OTHER = re.compile(rb"[^][0-9,\s-]")
_WHITESPACE, _BRACKETS = b" \t\r\n", bytes.maketrans(b"[]", b"  ")
_AS_ZERO = bytes.maketrans(b"123456789-", b"0" * 10)


@dataclass(frozen=True, eq=False)
class LongList:
    """What stands for a list that was read in pieces.

    Attributes:
        values: `[N]`, of whole numbers unless they are larger than any type of numpy's.
        form: its brackets and commas; None where it is flat.
    """

    values: NDArray[Any]
    form: bytes | None

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it is flat, or nested as a tensor of this shape is; it has to have as many values."""
        if self.form is None:
            return True
        expected = b"," * (shape[-1] - 1)
        for side in reversed(shape[:-1]):
            expected = b",".join([b"[%b]" % expected] * side)
        return self.form == b"[%b]" % expected


def load(text: bytes) -> Any:
    """What JSON says; a long list of whole numbers as `data` of its one input, flat or nested, is a `LongList`.

    Raises:
        ValueError, RecursionError: it is no JSON.
        Refusal: there is more beside such lists than is read at once.
    """
    if len(text) <= PIECE:
        return json.loads(text)
    lists, refusal = _long_lists(text)
    marks = [secrets.token_hex() for _ in lists]  # in their places, to see where they belong
    rest, end = [], 0
    for mark, (start, behind) in zip(marks, lists, strict=True):
        rest += [text[end:start], b'"%b"' % mark.encode()]
        end = behind
    beside = b"".join([*rest, text[end:]])
    if len(beside) > MOST_AT_ONCE:
        raise refusal or Refusal(
            413, f"{len(beside)} bytes of JSON beside the numbers in data; at most {MOST_AT_ONCE} are read"
        )
    request = json.loads(beside)
    match request:
        case {"inputs": [{"data": str(mark)} as entry]} if mark in marks:
            entry["data"] = _read(text, *lists[marks.index(mark)])
    return request


def _long_lists(text: bytes) -> tuple[list[tuple[int, int]], Refusal | None]:
    """Beginning and end of lists by the key `data`, and what is wrong with one that is none of whole numbers."""
    found: list[tuple[int, int]] = []
    refusal, start = None, 0
    for _ in range(_MOST_KEYS):
        start = text.find(b'"data"', start)
        if start < 0:
            break
        key = _DATA.match(text, start)
        if key is None:
            start += 1
            continue
        start = key.end()
        other = _end_of_numbers(text, start)
        end = text.rfind(b"]", start, other) + 1
        if end == 0:
            shown = text[other : other + 20].decode("utf-8", "replace")
            refusal = refusal or Refusal(400, f"data: expected whole numbers, and an end of them, got {shown!r}")
        elif end - start > PIECE:
            found.append((start, end))
        start = max(end, start)
    return found, refusal


def _end_of_numbers(text: bytes, start: int) -> int:
    """Where something else than numbers, commas and brackets begins."""
    for at in range(start, len(text), _LOOK):
        if (other := _OTHER.search(text, at, at + _LOOK)) is not None:
            return other.start()
    return len(text)


def _read(text: bytes, start: int, end: int) -> LongList:
    """The list between `start` and `end`. Raises ValueError where it is no JSON."""
    parts, form = [], []
    for piece in _pieces(text, start, end):
        if len(piece) > 2 * PIECE:
            raise ValueError(f"{len(piece)} bytes between two commas of data")
        signs = piece.translate(_AS_ZERO, _WHITESPACE)
        if b"0[" in signs or b"]0" in signs:
            raise ValueError("a number beside a list without a comma between them")
        form.append(signs.translate(None, b"0"))
        values = json.loads(b"[%b]" % piece.translate(_BRACKETS))
        if len(values) != 1 + form[-1].count(b","):  # none between two commas, or at an end
            raise ValueError("a comma, and no number beside it")
        part = np.array(values)
        small = part.dtype.kind in "iu" and part.min() >= 0 and part.max() <= 255
        parts.append(part.astype(np.uint8) if small else part)
    whole = b",".join(form)
    flat = whole.count(b"[") == 1 and whole.startswith(b"[") and whole.endswith(b"]") and whole.count(b"]") == 1
    return LongList(np.concatenate(parts), None if flat else whole)


def _pieces(text: bytes, start: int, end: int) -> Iterator[bytes]:
    """What is between `start` and `end`, cut at commas, which are left out."""
    while start <= end:
        comma = text.find(b",", start + PIECE, end)
        stop = comma if comma >= 0 else end
        yield text[start:stop]
        start = stop + 1
