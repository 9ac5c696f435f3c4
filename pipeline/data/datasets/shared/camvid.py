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

FRAMES_PER_SECOND = 30
"""Of the recordings, whose frames are numbered; one a second is labelled, and a part of 0016E5 at 15 Hz (the paper)."""

_FRAME = re.compile(r"^(.+?)_f?(\d+)$")


def sequence_of(name: str) -> str | None:
    """The recording a CamVid frame is from: `0001TP` of `0001TP_008550`, `Seq05VD` of `Seq05VD_f00000`."""
    match = _FRAME.match(name)
    return match.group(1) if match else None


def seconds_of(name: str) -> float | None:
    """When a CamVid frame was taken, in seconds of its recording: 285.0 of `0001TP_008550`."""
    match = _FRAME.match(name)
    return int(match.group(2)) / FRAMES_PER_SECOND if match else None
