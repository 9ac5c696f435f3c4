"""Options that every kind of artefact has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OutputOptions:
    """Options of a kind of artefact that has no others.

    Attributes:
        output: `mask`, or `mask+confidence` for a second output with the probability of the predicted class in 1/255.
    """

    output: Literal["mask", "mask+confidence"] = "mask"
