"""Segment images with an exported engine: one index-PNG mask per image, overlays and more on request.

Exit status: 0 all done; 1 some images could not be read or written (one line each, the others are done); 3 the engine
failed on some; 2 nothing was begun; 130 and 143 ended by Ctrl-C and SIGTERM, after the images in hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command, shown
from serving.contract.files import file_sha256, require_writable
from serving.contract.manifest import Manifest, read_sidecar
from serving.contract.parallel import in_order
from serving.engines.foreign.described import add_arguments, manifest_from, parse_size
from serving.engines.predictor import Predictor
from serving.engines.runtimes import RUNTIMES, default_runtime
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.images.decoding import MAX_PIXELS
from serving.images.listing import summary
from serving.inference.arrangement import arrange
from serving.inference.carrying import Carrier, Record, chunks, faster_batch
from serving.inference.interruption import Interruption
from serving.inference.kinds import FORMATS, chosen_kinds
from serving.inference.marks import LEGEND, run_name
from serving.inference.planning import Job, plan, results_of_other_runs
from serving.inference.progress import Progress
from serving.inference.results import ResultWriter
from serving.inference.sources import find_images
from serving.inference.supply import Supply
from serving.inference.tally import Tally

# Records that may wait for that of a slower image before them, for each worker: they are small, but frames of a video
# that wait for a worker are not.
_AHEAD, _FRAMES_AHEAD = 8, 2
_MOST_BATCH = 1024  # they are in memory at once
_MOST_THREADS = 1024  # each of them is one of the operating system's: a mistyped number would stop the machine
# So many images are worth finding out whether they run faster together.
_MANY = 64


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    typed = list(sys.argv[1:] if argv is None else argv)
    # Behind `--` stand images, whatever they begin with: taken off here, since argparse refuses them in mixed order.
    end = typed.index("--") if "--" in typed else len(typed)
    arguments = _parser().parse_intermixed_args(typed[:end])  # images may stand before, between and behind options
    arguments.images = [*arguments.images, *typed[end + 1 :]]
    _check(arguments)
    program = program_name("serving.infer").split()
    described = manifest_from(arguments, arguments.engine, typed=[*program, *typed])
    manifest = described or read_sidecar(arguments.engine)
    if arguments.cutout is not None and "cutout" not in (arguments.format or ""):
        raise UserError(f"--cutout {arguments.cutout}: no cutout is written; add --format cutout")
    kinds = chosen_kinds(
        arguments.format, overlay=arguments.overlay, confidence=arguments.confidence, manifest=manifest
    )
    output = str(arguments.output)
    legend = str(arguments.output / LEGEND) if arguments.legend else None
    listing = find_images(arguments.images, lists=arguments.list, results=output)
    planned = plan(listing.images, output, endings=list(kinds.values()), legend=legend)
    jobs = planned.jobs
    _say(summary([*listing.left_out, *planned.left_out]))
    if not jobs:
        raise UserError("nothing to do: every image that was found is a result of an earlier run")
    tile = parse_size("--tile", arguments.tile)
    runtime = arguments.runtime or default_runtime(manifest.kind)
    threads, options = arguments.threads, runtime_options(arguments)
    if threads is not None:
        del options["threads"]  # of the whole run: `arrange` deals them out
    arrangement = arrange(jobs, RUNTIMES.resolve(runtime), options, threads=threads, tile=tile)
    with Predictor(
        arguments.engine,
        runtime=runtime,
        options=arrangement.options,
        manifest=described,
        tile=tile,
        overlap=arguments.overlap,
    ) as predictor:
        if arguments.selftest:
            _require_sound(predictor)
        require_writable(arguments.output)
        sha256 = manifest.sha256 or file_sha256(arguments.engine)
        run = _run_name(arguments, manifest, sha256, runtime, options, kinds)
        writer = ResultWriter(manifest, kinds, run, arguments.opacity, _cutout_classes(arguments.cutout, manifest))
        others = results_of_other_runs(jobs, output, endings=list(kinds.values()), legend=legend)
        _say(_about_other_runs(others, output))
        if legend is not None:
            _say(writer.write_legend(Path(legend)))
        carrier = Carrier(predictor, writer, arguments.max_pixels, arguments.skip_existing, arguments.json)
        return _run(arguments, jobs, carrier, arrangement.workers, sha256)


def _run(arguments: argparse.Namespace, jobs: Sequence[Job], carrier: Carrier, workers: int, sha256: str) -> int:
    """Carry all images through, saying what becomes of each; returns the exit status."""
    supply = Supply(jobs, arguments.max_pixels)
    many = supply.expected >= _MANY
    batch = arguments.batch or (faster_batch(carrier.predictor, jobs, arguments.max_pixels) if many else 1)
    ahead = _FRAMES_AHEAD if supply.holds_videos else _AHEAD
    tally, progress = Tally(), Progress(supply.expected)
    no_room = False
    with Interruption() as interruption:
        going_on = _until(lambda: no_room or interruption.number is not None, chunks(supply, batch))
        for records in in_order(carrier.carry, going_on, workers=workers, ahead=ahead * workers):
            for record in records:
                tally.add(record)
                no_room = no_room or record.is_full
                _report(record, carrier.writer, sha256, progress, as_json=arguments.json)
            progress.update(tally.through)
    progress.clear()
    _say(tally.notes())
    if tally.through:
        result = tally.result(supply.total, str(arguments.output))
        (sys.stderr if arguments.json else sys.stdout).write(f"{result}\n")
    if supply.rest:
        why = "there is no room for results" if no_room else "interrupted"
        what = "images or videos were not finished" if supply.holds_videos else "images were not begun"
        sys.stderr.write(f"error: {why}, {supply.rest} {what}; the same command with --skip-existing goes on\n")
    return interruption.exit_status or tally.status


def _until(over: Callable[[], bool], chunks: Iterator[list[Job]]) -> Iterator[list[Job]]:
    """The chunks; none is taken after it is over, so that each one taken is carried."""
    while not over():
        chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _report(record: Record, writer: ResultWriter, sha256: str, progress: Progress, *, as_json: bool) -> None:
    if record.status == "failed":
        progress.say(f"error: {record.problem}")
    if as_json:
        sys.stdout.write(json.dumps(record.to_json(writer, sha256)) + "\n")
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("serving.infer"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE_OR_DIR",
        help="images, folders, patterns, videos; - for a list on stdin",
    )
    parser.add_argument("--list", action="append", default=[], metavar="FILE", help="a file with an image per line")
    parser.add_argument("--engine", type=Path, required=True, help="model.onnx or model.plan, manifest.json beside it")
    parser.add_argument("--output", type=_folder, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--format", metavar="KINDS", help=f"what to write: {','.join(FORMATS)} (default: mask)")
    parser.add_argument("--overlay", action="store_true", help="also write NAME.overlay.jpg")
    parser.add_argument("--opacity", type=float, default=0.5, help="of the overlay's colours (default 0.5)")
    parser.add_argument(
        "--confidence", action="store_true", help="also write NAME.confidence.png, where the engine gives it"
    )
    parser.add_argument("--cutout", metavar="a,b,c", help="classes that a cutout shows (default: all but the first)")
    parser.add_argument("--legend", action="store_true", help="also write legend.png: the colours and their classes")
    parser.add_argument("--json", action="store_true", help="print one line of JSON per image")
    parser.add_argument("--skip-existing", action="store_true", help="leave out what this engine did already")
    parser.add_argument(
        "--selftest", action="store_true", help="first test the engine here, with the golden files beside it"
    )
    parser.add_argument("--batch", type=int, help="images of one size that run together (default: measured)")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="larger images are refused")
    parser.add_argument("--tile", metavar="HxW", help="cut larger images into windows of this size, 32x32 at least")
    parser.add_argument("--overlap", type=int, default=64, help="pixels that windows share (default 64)")
    add_runtime_arguments(parser)
    add_arguments(parser)
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError for numbers that are out of range, all at once."""
    problems = []
    if not 0 <= arguments.opacity <= 1:
        problems.append(f"--opacity: expected in 0..1, got {arguments.opacity}")
    for name in ("batch", "max_pixels", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            problems.append(f"--{name.replace('_', '-')}: expected at least 1, got {value}")
    for name, most in (("batch", _MOST_BATCH), ("threads", _MOST_THREADS)):
        value = getattr(arguments, name)
        if value is not None and value > most:
            problems.append(f"--{name}: expected at most {most}, got {value}")
    if arguments.overlap < 0:
        problems.append(f"--overlap: expected at least 0, got {arguments.overlap}")
    if problems:
        raise UserError("\n".join(problems))


def _folder(text: str) -> Path:
    """The path; an unset variable of a shell is no folder, least of all the one at hand."""
    if not text:
        raise UserError("--output: expected the name of a folder, got nothing")
    return Path(text)


def _cutout_classes(text: str | None, manifest: Manifest) -> tuple[int, ...]:
    if text is None:
        return tuple(range(1, manifest.num_classes))
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in manifest.class_names]
    if unknown:
        raise UserError(f"--cutout: no class {', '.join(unknown)}; the engine has {', '.join(manifest.class_names)}")
    return tuple(manifest.class_names.index(name) for name in names)


def _run_name(
    arguments: argparse.Namespace,
    manifest: Manifest,
    sha256: str,
    runtime: str,
    options: Mapping[str, object],
    kinds: Mapping[str, str],
) -> str:
    """What tells the results of this run from those of another engine or other settings."""
    return run_name(
        {
            "manifest": manifest.to_json(),
            "sha256": sha256,
            "runtime": runtime,
            "options": options,
            "tile": arguments.tile,
            "overlap": arguments.overlap if arguments.tile else None,
            "opacity": arguments.opacity if "overlay" in kinds else None,
            "cutout": arguments.cutout if "cutout" in kinds else None,
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
    some = ", ".join(map(shown, results[:3])) + (f" and {len(results) - 3} more" if len(results) > 3 else "")
    return [
        f"{len(results)} results of an earlier run are in {shown(output)} and not of this one: {some}; "
        "delete them, or choose another --output"
    ]


def _say(lines: Sequence[str]) -> None:
    sys.stderr.writelines(f"note: {line}\n" for line in lines)


if __name__ == "__main__":
    run_command(main)
