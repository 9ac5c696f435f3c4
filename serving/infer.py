"""Segment images with an exported engine: one index-PNG mask per image, overlays on request.

Exit status: 0 all done; 1 some images could not be (one line each, the others are done); 3 the engine failed on some;
2 nothing was begun.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command, shown
from serving.contract.files import file_sha256, is_full, require_writable
from serving.contract.manifest import Manifest
from serving.foreign.described import add_arguments, manifest_from, parse_size
from serving.images.decoding import decode_image
from serving.images.image_io import open_file
from serving.images.listing import LeftOut, list_images, summary
from serving.inference.marks import HEAD_BYTES, LEGEND, mark_of, read_mark, run_name
from serving.inference.planning import OWN_RESULT, Job, plan, results_of_other_runs
from serving.inference.results import ResultWriter
from serving.predictor import Predictor
from serving.runtimes.arguments import add_runtime_arguments, runtime_options

UInt8 = NDArray[np.uint8]


@dataclasses.dataclass
class Outcome:
    """What became of a run's images.

    Attributes:
        timings: of each image that was done, in milliseconds.
        left_out: images that turned out to be results of an earlier run.
        failed: number of images that could not be done.
        engine_failed: number of those that the engine failed on.
        notes: what was done with an image that its owner may want to know -> the images.
    """

    timings: list[dict[str, float]] = dataclasses.field(default_factory=list)
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)
    failed: int = 0
    engine_failed: int = 0
    notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def run_jobs(jobs: Sequence[Job], predictor: Predictor, writer: ResultWriter) -> Outcome:
    """Segment every image; what fails costs one line on stderr and no other image."""
    outcome = Outcome()
    for number, job in enumerate(jobs, start=1):
        _show_progress(number, len(jobs))
        try:
            image = _read(job, outcome)
            if image is None:
                continue
            try:
                segmentation = predictor.segment([image])[0]
            except UserError as error:
                outcome.engine_failed += 1
                raise UserError(f"{job.image.path}: {error}") from error
            writer.write(job, image, segmentation)
            outcome.timings.append(predictor.timings_ms)
        except UserError as error:
            outcome.failed += 1
            results = [job.result(kind) for kind in writer.kinds]
            old = [shown(path) for path in results if read_mark(path) not in (None, writer.run)]
            still = f" ({', '.join(old)}: still there, of an earlier run)" if old else ""
            sys.stderr.write(f"error: {shown(error)}{still}\n")
            if is_full(error):
                sys.stderr.write(f"error: stopped, {len(jobs) - number} images were not begun: make room first\n")
                break
    return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    typed = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(typed)
    if not 0 <= arguments.opacity <= 1:
        raise UserError(f"--opacity: expected in 0..1, got {arguments.opacity}")
    program = program_name("serving.infer").split()
    manifest = manifest_from(arguments, arguments.engine, typed=[*program, *typed])
    output, legend = str(arguments.output), str(arguments.output / LEGEND) if arguments.legend else None
    kinds = ("mask", *(kind for kind in ("overlay", "confidence") if getattr(arguments, kind)))
    listing = list_images(arguments.images, results=output)
    planned = plan(listing.images, output, kinds=kinds, legend=legend)
    _say(summary([*listing.left_out, *planned.left_out]))
    options = runtime_options(arguments)
    with Predictor(
        arguments.engine,
        runtime=arguments.runtime,
        options=options,
        manifest=manifest,
        tile=parse_size("--tile", arguments.tile),
        overlap=arguments.overlap,
    ) as predictor:
        if arguments.confidence and predictor.manifest.confidence_output is None:
            raise UserError(f"--confidence: {arguments.engine} gives none; export it with `output: mask+confidence`")
        run = _run_name(arguments, predictor.manifest, predictor.runtime.name, options)
        writer = ResultWriter(predictor.manifest, kinds, run, arguments.opacity)
        _say(_about_other_runs(results_of_other_runs(planned.jobs, output, kinds=kinds, legend=legend), output))
        if arguments.selftest:
            _require_sound(predictor)
        require_writable(arguments.output)
        if legend is not None:
            writer.write_legend(Path(legend))
        outcome = run_jobs(planned.jobs, predictor, writer)
    _say(summary(outcome.left_out))
    _say([f"{len(paths)} {note}: {_some(paths)}" for note, paths in sorted(outcome.notes.items())])
    if outcome.timings:
        timings = outcome.timings
        medians = {part: np.median([timing[part] for timing in timings]) for part in timings[0]}
        parts = ", ".join(f"{part} {milliseconds:.1f}" for part, milliseconds in medians.items())
        done = f"{len(timings)} of {len(planned.jobs) - len(outcome.left_out)} images in {shown(output)}"
        sys.stdout.write(f"{done}; median ms per image: {parts}\n")
    return 3 if outcome.engine_failed else 1 if outcome.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("serving.infer"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR", help="images, or folders of images")
    parser.add_argument("--engine", type=Path, required=True, help="model.onnx or model.plan, manifest.json beside it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overlay", action="store_true", help="also write NAME.overlay.jpg")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the overlay's colours (default 0.5)")
    parser.add_argument(
        "--confidence", action="store_true", help="also write NAME.confidence.png, where the engine gives it"
    )
    parser.add_argument("--legend", action="store_true", help="also write legend.png: the colours and their classes")
    parser.add_argument(
        "--selftest", action="store_true", help="first test the engine here, with the golden files beside it"
    )
    parser.add_argument("--tile", metavar="HxW", help="cut larger images into windows of this size")
    parser.add_argument("--overlap", type=int, default=64, help="pixels that windows share (default 64)")
    add_runtime_arguments(parser)
    add_arguments(parser)
    return parser


def _read(job: Job, outcome: Outcome) -> UInt8 | None:
    """The image of a job; None where it is the result of an earlier run."""
    path = job.image.path
    with open_file(path) as file:
        if mark_of(file.read(HEAD_BYTES)) is not None:
            outcome.left_out.append(LeftOut(path, OWN_RESULT))
            return None
        file.seek(0)
        decoded = decode_image(file, path)
    for note in decoded.notes:
        outcome.notes.setdefault(note, []).append(path)
    return decoded.pixels


def _run_name(arguments: argparse.Namespace, manifest: Manifest, runtime: str, options: Mapping[str, object]) -> str:
    """What tells the results of this run from those of another engine or other settings."""
    return run_name(
        {
            "manifest": manifest.to_json(),
            "sha256": manifest.sha256 or file_sha256(arguments.engine),
            "runtime": runtime,
            "options": options,
            "tile": arguments.tile,
            "overlap": arguments.overlap,
            "opacity": arguments.opacity,
        }
    )


def _require_sound(predictor: Predictor) -> None:
    """Raise UserError unless the engine computes here what it computed in the lab."""
    from serving.golden.selftest import self_test  # only now: few runs ask for it

    result = self_test(predictor)
    if not result.passed:
        raise UserError("the self-test failed, nothing was begun: " + "; ".join(result.problems))


def _about_other_runs(results: Sequence[str], output: str) -> list[str]:
    if not results:
        return []
    return [
        f"{len(results)} results of an earlier run are in {shown(output)} and not of this one: {_some(results)}; "
        "delete them, or choose another --output"
    ]


def _some(paths: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(shown, paths[:most])) + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _say(lines: Sequence[str]) -> None:
    sys.stderr.writelines(f"note: {line}\n" for line in lines)


def _show_progress(number: int, total: int) -> None:
    if total > 1 and sys.stderr.isatty():
        sys.stderr.write(f"\r{number}/{total}" + ("\n" if number == total else ""))


if __name__ == "__main__":
    run_command(main)
