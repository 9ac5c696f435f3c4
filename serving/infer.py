"""Segment images with an exported engine: one index-PNG mask per image, overlays on request.

Exit status: 0 all done; 1 some images could not be (one line each, the others are done); 2 nothing was begun.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.manifest import Manifest
from serving.foreign.described import add_arguments, manifest_from, parse_size
from serving.images.image_io import ListedImage, list_images, read_image, write_image, write_mask
from serving.predictor import Predictor
from serving.runtimes.arguments import add_runtime_arguments, runtime_options


@dataclass(frozen=True)
class Job:
    """One image and the files that come of it.

    Attributes:
        image: what to read.
        mask, overlay, confidence: what to write; None where it was not asked for.
    """

    image: Path
    mask: Path
    overlay: Path | None
    confidence: Path | None


def plan(
    images: Sequence[ListedImage], output: Path, *, overlays: bool, confidences: bool, legend: Path | None
) -> list[Job]:
    """Decide where everything goes, before anything runs.

    An image `x/a.jpg` gives `x/a.png`; where two would give the same file, all of those keep their own ending
    (`a.jpg.png`, `a.bmp.png`).

    Args:
        images: what to segment.
        output: the folder for the results.
        overlays, confidences: which files to write beside the masks.
        legend: a further file that will be written.

    Raises:
        UserError: two results would be one file, or a result would overwrite an image; all at once.
    """
    stems = [_key(image.relative.with_suffix("")) for image in images]
    jobs = []
    for image, stem in zip(images, stems, strict=True):
        relative = image.relative
        kept = relative.name if stems.count(stem) > 1 else relative.stem
        named = [relative.with_name(f"{kept}{ending}") for ending in (".png", ".overlay.jpg", ".confidence.png")]
        mask, overlay, confidence = (output / name for name in named)
        jobs.append(Job(image.path, mask, overlay if overlays else None, confidence if confidences else None))
    inputs = {_key(job.image.resolve()): job.image for job in jobs}
    taken: dict[str, str] = {_key(legend.resolve()): "the legend"} if legend else {}
    problems: list[str] = []
    for job in jobs:
        for result in (job.mask, job.overlay, job.confidence):
            if result is None:
                continue
            key = _key(result.resolve())
            if key in inputs:
                problems.append(f"{result}: is an image to read; choose another --output")
            elif key in taken:
                problems.append(f"{result}: would be written for {taken[key]} and for {job.image}")
            taken.setdefault(key, str(job.image))
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:20]) + ("\n  ..." if len(problems) > 20 else "")
        raise UserError(f"names clash, nothing was written; run such images apart with another --output:{listed}")
    return jobs


def run_jobs(jobs: Sequence[Job], predictor: Predictor, *, opacity: float) -> tuple[list[dict[str, float]], int]:
    """Segment every image; what fails costs one line on stderr and no other image.

    Returns:
        The timings of each image that was done, in milliseconds, and how many were not.
    """
    timings: list[dict[str, float]] = []
    failed = 0
    for number, job in enumerate(jobs, start=1):
        _show_progress(number, len(jobs))
        try:
            image = read_image(job.image)
            try:
                segmentation = predictor.segment([image])[0]
            except UserError as error:
                raise UserError(f"{job.image}: {error}") from error
            palette = predictor.manifest.palette
            write_mask(job.mask, segmentation.mask, palette)
            if job.overlay is not None:
                from serving.render import overlay  # only now: its imports cost every cold start otherwise

                write_image(job.overlay, overlay(image, segmentation.mask, palette, opacity=opacity))
            if job.confidence is not None and segmentation.confidence is not None:
                write_image(job.confidence, segmentation.confidence)
            timings.append(predictor.timings_ms)
        except UserError as error:
            failed += 1
            sys.stderr.write(f"error: {error}\n")
    return timings, failed


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    if not 0 <= arguments.opacity <= 1:
        raise UserError(f"--opacity: expected in 0..1, got {arguments.opacity}")
    manifest = manifest_from(arguments, arguments.engine)
    images = list_images(arguments.images, exclude=arguments.output)
    legend = arguments.output / "legend.png" if arguments.legend else None
    jobs = plan(images, arguments.output, overlays=arguments.overlay, confidences=arguments.confidence, legend=legend)
    with Predictor(
        arguments.engine,
        runtime=arguments.runtime,
        options=runtime_options(arguments),
        manifest=manifest,
        tile=parse_size("--tile", arguments.tile),
        overlap=arguments.overlap,
    ) as predictor:
        if arguments.confidence and predictor.manifest.confidence_output is None:
            raise UserError(f"--confidence: {arguments.engine} gives none; export it with `output: mask+confidence`")
        if legend is not None:
            _write_legend(legend, predictor.manifest)
        timings, failed = run_jobs(jobs, predictor, opacity=arguments.opacity)
    if timings:
        medians = {part: np.median([timing[part] for timing in timings]) for part in timings[0]}
        parts = ", ".join(f"{part} {milliseconds:.1f}" for part, milliseconds in medians.items())
        sys.stdout.write(f"{len(timings)} of {len(jobs)} images in {arguments.output}; median ms per image: {parts}\n")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("serving.infer"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE_OR_DIR", help="images, or folders of images")
    parser.add_argument("--engine", type=Path, required=True, help="model.onnx or model.plan, manifest.json beside it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overlay", action="store_true", help="also write NAME.overlay.jpg")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the overlay's colours (default 0.5)")
    parser.add_argument(
        "--confidence", action="store_true", help="also write NAME.confidence.png, where the engine gives it"
    )
    parser.add_argument("--legend", action="store_true", help="also write legend.png: the colours and their classes")
    parser.add_argument("--tile", metavar="HxW", help="cut larger images into windows of this size")
    parser.add_argument("--overlap", type=int, default=64, help="pixels that windows share (default 64)")
    add_runtime_arguments(parser)
    add_arguments(parser)
    return parser


def _key(path: PurePath) -> str:
    """What makes two paths one file: on macOS and Windows, capitals do not tell files apart."""
    return str(path).casefold() if sys.platform in ("darwin", "win32") else str(path)


def _write_legend(path: Path, manifest: Manifest) -> None:
    from serving.render import legend

    write_image(path, legend(manifest.class_names, manifest.palette))


def _show_progress(number: int, total: int) -> None:
    if total > 1 and sys.stderr.isatty():
        sys.stderr.write(f"\r{number}/{total}" + ("\n" if number == total else ""))


if __name__ == "__main__":
    run_command(main)
