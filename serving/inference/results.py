"""The files that come of an image, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.contract.manifest import Manifest
from serving.images.image_io import write_image, write_mask
from serving.inference.marks import mark_text
from serving.inference.planning import Job
from serving.predictor import Segmentation

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class ResultWriter:
    """Writes the results of a run.

    Attributes:
        manifest: of the engine: class names and colours.
        kinds: of results, of `marks.ENDINGS`.
        run: its name, which every result is marked with.
        opacity: of the overlay's colours, in [0, 1].
    """

    manifest: Manifest
    kinds: tuple[str, ...]
    run: str
    opacity: float

    def write(self, job: Job, image: UInt8, segmentation: Segmentation) -> None:
        """Write all results of one image.

        Args:
            job: where they go.
            image: `[H,W,3]` uint8 RGB, as it was read.
            segmentation: of the image.

        Raises:
            UserError: a file cannot be written; those before it are.
        """
        for kind in self.kinds:
            self._write(kind, Path(job.result(kind)), image, segmentation)

    def write_legend(self, path: Path) -> None:
        """Write the colours with the names of their classes. Raises UserError where the file cannot be written."""
        from serving.render import legend  # only now: the font costs every cold start otherwise

        drawn = legend(self.manifest.class_names, self.manifest.palette)
        write_image(path, drawn, mark=mark_text("legend", self.run))

    def _write(self, kind: str, path: Path, image: UInt8, segmentation: Segmentation) -> None:
        mark, palette = mark_text(kind, self.run), self.manifest.palette
        if kind == "mask":
            write_mask(path, segmentation.mask, palette, mark=mark)
        elif kind == "confidence":
            assert segmentation.confidence is not None, "asked of an engine that gives none"
            write_image(path, segmentation.confidence, mark=mark)
        else:
            from serving.render import overlay  # only now: its imports cost every cold start otherwise

            write_image(path, overlay(image, segmentation.mask, palette, opacity=self.opacity), mark=mark)
