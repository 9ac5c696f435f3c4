"""What both layouts of CamVid share: its usual 11 classes and the recordings that its frames are from.

Source of the data: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009.
"""

from __future__ import annotations

import re

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
"""Name -> colour of the published figures, in the order of the label ids 0..10."""

_SEQUENCE = re.compile(r"^(.+?)_f?\d+$")


def sequence_of(name: str) -> str | None:
    """The recording a CamVid frame is from: `0001TP` of `0001TP_008550`, `Seq05VD` of `Seq05VD_f00000`."""
    match = _SEQUENCE.match(name)
    return match.group(1) if match else None
