"""The one interface of every exporter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.network.weights import SegmentorInfo


@dataclass(frozen=True)
class ExportContext:
    """Where an artefact goes and what it is made of.

    Attributes:
        name: of the artefact, as in params.yaml.
        folder: an existing folder for the engine file and its manifest.
        info: what the segmentor is and where it comes from.
        prepared: opens the prepared dataset, for exporters that calibrate; None where there is none.
    """

    name: str
    folder: Path
    info: SegmentorInfo
    prepared: Callable[[], Prepared] | None = None


class Exporter(Protocol):
    """Exports a segmentor. Equal inputs give equal bytes, in any process."""

    def __call__(self, segmentor: Segmentor, context: ExportContext, options: Any) -> Path:
        """Write the engine file and, beside it, its manifest.

        Args:
            segmentor: in evaluation mode, on the CPU; left as it is.
            context: where to and what of.
            options: an instance of the kind's own options class.

        Returns:
            Path of the engine file.

        Raises:
            UserError: this network cannot be exported so.
        """
