"""The files that come of an image, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import shown
from serving.contract.manifest import Manifest
from serving.engines.predictor import Segmentation
from serving.images.image_io import write_image, write_mask
from serving.inference.marks import mark_text, read_marked
from serving.inference.planning import Job

UInt8 = NDArray[np.uint8]

_NAMES = 3  # that one line shows


@dataclass(frozen=True)
class ResultWriter:
    """Writes the results of a run.

    Attributes:
        manifest: of the engine: class names and colours.
        kinds: kind -> ending of what is written for every image; a class index stands for that class's layer.
        run: its name, which every result is marked with.
        opacity: of the overlay's colours, in [0, 1].
        cutout_classes: classes that a cutout shows; the others are transparent in it.
    """

    manifest: Manifest
    kinds: Mapping[str, str]
    run: str
    opacity: float = 0.5
    cutout_classes: tuple[int, ...] = ()

    def paths(self, job: Job) -> dict[str, str]:
        """Kind -> where it goes."""
        return {kind: job.stem + ending for kind, ending in self.kinds.items()}

    def is_done(self, job: Job, source: str) -> bool:
        """Whether all results of an image in this state are there, by the same engine and settings."""
        return bool(source) and all(read_marked(path) == (self.run, source) for path in self.paths(job).values())

    def of_other_runs(self, job: Job, source: str) -> list[str]:
        """Results that an earlier run left there, or this one of the image in another state."""
        return [path for path in self.paths(job).values() if read_marked(path) not in (None, (self.run, source))]

    def write(self, job: Job, image: UInt8, segmentation: Segmentation, source: str) -> None:
        """Write all results of one image.

        Args:
            job: where they go.
            image: `[H,W,3]` uint8 RGB, as it was read.
            segmentation: of the image.
            source: the `source_name` of its file, from before it was read.

        Raises:
            UserError: a file cannot be written; those before it are.
        """
        for kind, path in self.paths(job).items():
            self._write(kind, Path(path), image, segmentation, source)

    def write_legend(self, path: Path) -> list[str]:
        """Write the colours with the names of their classes.

        Returns:
            What is to be said of it.

        Raises:
            UserError: the file cannot be written.
        """
        from serving.render import legend, undrawn  # only now: the font costs every cold start otherwise

        names = self.manifest.class_names
        write_image(path, legend(names, self.manifest.palette), mark=mark_text("legend", self.run))
        lacking = [f"{index} {shown(names[index])}" for index in undrawn(names)]
        if not lacking:
            return []
        some = ", ".join(lacking[:_NAMES]) + (f" and {len(lacking) - _NAMES} more" if len(lacking) > _NAMES else "")
        return [f"{len(lacking)} names in {shown(path)} by number, since its font has no such characters: {some}"]

    def _write(self, kind: str, path: Path, image: UInt8, segmentation: Segmentation, source: str) -> None:
        palette = self.manifest.palette
        mark = mark_text("layer" if kind.isdigit() else kind, self.run, source)
        if kind == "mask":
            write_mask(path, segmentation.mask, palette, mark=mark)
        else:
            write_image(path, self._drawn(kind, image, segmentation), mark=mark)

    def _drawn(self, kind: str, image: UInt8, segmentation: Segmentation) -> UInt8:
        """What a file other than the mask shows."""
        if kind == "confidence":
            assert segmentation.confidence is not None, "asked of an engine that gives none"
            return segmentation.confidence
        if kind.isdigit():
            assert segmentation.layers is not None, "asked of an engine whose classes do not overlap"
            return np.ascontiguousarray(segmentation.layers[..., int(kind) - 1])
        from serving import render  # only now: its imports cost every cold start otherwise

        mask, palette = segmentation.mask, self.manifest.palette
        if kind == "color":
            return render.color_mask(mask, palette)
        if kind == "cutout":
            return render.cutout(image, mask, self.cutout_classes)
        return render.overlay(image, mask, palette, opacity=self.opacity)
