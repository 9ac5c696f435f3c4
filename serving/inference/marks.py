"""What `infer` writes into its results, so that it knows them again: they are never taken for photographs.

The mark is the text `Software` of a PNG and the comment of a JPEG, within the first bytes of the file:
`contrail.infer mask 0123456789abcdef`, where the last word names the run: equal words, equal engine and settings.
"""

from __future__ import annotations

import hashlib
import json
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


def mark_text(kind: str, run: str) -> str:
    """The mark of a result of a kind (`mask`, `overlay`...) and a run."""
    return f"{_WORD.decode()}{kind} {run}"


def run_name(values: Mapping[str, object]) -> str:
    """A short name of everything that decides what the results look like: equal values, equal name."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def mark_of(head: bytes) -> str | None:
    """The run of a result whose file begins with `head`; None for what `infer` did not write."""
    _, found, rest = head[:HEAD_BYTES].partition(_WORD)
    words = rest[:40].split(b" ") if found else []
    if len(words) < 2 or words[0].decode("ascii", "replace") not in _KINDS:
        return None
    return words[1][:16].decode("ascii", "replace")


def read_mark(path: str) -> str | None:
    """The run of the result in a file; None for what `infer` did not write, and for what cannot be read."""
    try:
        with open_file(path) as file:
            return mark_of(file.read(HEAD_BYTES))
    except (UserError, OSError):
        return None
