"""What `infer` writes into its results, so that it knows them again: they are never taken for photographs.

The mark is the text `Software` of a PNG and the comment of a JPEG, within the first bytes of the file:
`contrail.infer mask 0123456789abcdef 0123456789abcdef`, where the third word names the run (equal words, equal engine
and settings) and the last one the state of the image's file that it is of.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping

from serving.contract.errors import UserError
from serving.images.image_io import open_file

ENDINGS = {
    "mask": ".png",
    "color": ".color.png",
    "overlay": ".overlay.jpg",
    "cutout": ".cutout.png",
    "confidence": ".confidence.png",
}
LEGEND = "legend.png"
_KINDS = (*ENDINGS, "layer", "legend")
HEAD_BYTES = 256
_WORD = b"contrail.infer "


def mark_text(kind: str, run: str, source: str = "") -> str:
    """The mark of a result of a kind (`mask`, `overlay`...) and a run, made of a `source_name` where one is known."""
    return f"{_WORD.decode()}{kind} {run} {source}".rstrip()


def run_name(values: Mapping[str, object]) -> str:
    """A short name of everything that decides what the results look like: equal values, equal name."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def source_name(path: str) -> str:
    """A short name of the state that a file is in, "" where there is none.

    Its size and its time: another photograph that took its place is another state also where it kept a time from before
    the results were made, as `cp -p`, `mv`, `rsync -a` and archives do.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]


def mark_of(head: bytes) -> str | None:
    """The run of a result whose file begins with `head`; None for what `infer` did not write."""
    marked = _marked(head)
    return None if marked is None else marked[0]


def read_mark(path: str) -> str | None:
    """The run of the result in a file; None for what `infer` did not write, and for what cannot be read."""
    marked = read_marked(path)
    return None if marked is None else marked[0]


def read_marked(path: str) -> tuple[str, str] | None:
    """Run and `source_name` of the result in a file, "" where it names none; else as `read_mark`."""
    try:
        with open_file(path) as file:
            return _marked(file.read(HEAD_BYTES))
    except (UserError, OSError):
        return None


def _marked(head: bytes) -> tuple[str, str] | None:
    _, found, rest = head[:HEAD_BYTES].partition(_WORD)
    kind, *words = rest[:60].split(b" ") if found else [b""]
    if not words or kind.decode("ascii", "replace") not in _KINDS:
        return None
    run, source = (word[:16].decode("ascii", "replace") for word in [*words, b""][:2])
    return run, source
