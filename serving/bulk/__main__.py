"""Segment the images below a URI into masks below another, on Ray Data: this machine or a cluster (extra `bulk`).

`x/a.jpg` gives `x/a.jpg.png`. What is done is noted below OUTPUT/_done: the same command goes on where it was stopped.
Exit status: 0 all done; 1 some images could not be read or written (listed at the end, and in
OUTPUT/_done/failed.jsonl); 3 the engine failed on some, workers died of some, or no worker could open it; 2 nothing
was begun; 130 and 143 ended by Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.bulk.pool import cluster, segmented
from serving.bulk.storage import Folder, writable
from serving.bulk.work import DONE_FOLDER, Task, done_before
from serving.contract.command import program_name, require_at_least
from serving.contract.errors import EngineError, UserError, run_command, shown
from serving.contract.files import file_sha256
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes.arguments import add_runtime_arguments, runtime_options
from serving.extras import require_extra
from serving.images.decoding import MAX_PIXELS
from serving.images.listing import summary
from serving.inference.interruption import Interruption
from serving.inference.progress import Progress

FAILED_NAME = f"{DONE_FOLDER}/failed.jsonl"
_NAMES = 3


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    require_at_least(arguments, {"actors": 1, "batch": 1, "max_pixels": 1, "threads": 1})
    require_extra("bulk", ("ray", "pyarrow"))
    task = _task(arguments)
    source, sink = Folder(task.input), Folder(task.output)
    images = source.images(results=sink)
    for line in summary(images.left_out):
        sys.stderr.write(f"note: {line}\n")
    if arguments.address is None:
        task.open().close()  # what is wrong with the engine is said here, and not by every worker
    with writable(sink):
        done = done_before(sink, task.run, images.versions)
        sink.write(FAILED_NAME, b"")
    waiting = {name: version for name, version in images.versions.items() if name not in done}
    sys.stderr.write(f"note: {len(images.versions)} images, {len(done)} of them done before\n")
    tally = _Tally(len(waiting))
    for name, reason in images.unreadable.items():
        tally.fail(name, f"{name}: {reason}", status=1)
    if waiting:
        tally.run(waiting, task, arguments)
    tally.failed.sort(key=lambda each: each["image"])
    lines = "".join(json.dumps(each) + "\n" for each in tally.failed)
    with writable(sink):
        sink.write(FAILED_NAME, lines.encode())
    tally.say()
    total = len(images.versions) + len(images.unreadable) - tally.left_out
    sys.stdout.write(f"{len(done) + tally.done} of {total} images in {shown(sink.uri)}\n")
    return tally.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("serving.bulk"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=Path, required=True, help="engine file, at this path on every machine")
    parser.add_argument("--input", required=True, metavar="URI", help="folder of images: a path, s3://, gs://, hdfs://")
    parser.add_argument("--output", required=True, metavar="URI", help="folder of masks")
    parser.add_argument("--address", help="of a Ray cluster (default: this machine alone)")
    parser.add_argument("--actors", type=int, help="engines at once (default: one for each CPU or GPU)")
    parser.add_argument("--batch", type=int, default=16, help="images that are handed to a worker at once (default 16)")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="larger images are refused")
    add_runtime_arguments(parser)
    return parser


def _task(arguments: argparse.Namespace) -> Task:
    """What the command line asks for. Raises UserError for an engine that is not there, or has no manifest."""
    engine = arguments.engine.resolve()
    manifest = read_sidecar(engine)
    options = runtime_options(arguments)
    if manifest.kind == "onnx" and not _on_gpu(options, engine):
        options = {"threads": 1, **options}  # as many engines as CPUs: each has its own
    uris = {}
    for name in ("input", "output"):
        uri = getattr(arguments, name)
        if not uri:
            raise UserError(f"--{name}: expected a folder or a URI, got nothing")
        uris[name] = Folder(uri).uri  # workers run in folders of Ray's
    return Task(
        engine=str(engine),
        sha256=manifest.sha256 or file_sha256(engine),
        manifest=manifest.to_json(),
        runtime=arguments.runtime,
        options=options,
        **uris,
        max_pixels=arguments.max_pixels,
    )


def _on_gpu(options: Mapping[str, object], engine: Path) -> bool:
    return options.get("provider") not in (None, "cpu") or engine.suffix in (".plan", ".engine")


class _Tally:
    """Runs the workers, and keeps what became of the images.

    Args:
        total: images to segment.

    Attributes:
        done, left_out: how many.
        failed: `image` and `problem` of those that failed, by their names.
        status: the command's exit status.
    """

    def __init__(self, total: int) -> None:
        self.done = self.left_out = self.status = 0
        self.failed: list[dict[str, str]] = []
        self._notes: dict[str, list[str]] = {}
        self._ended = ""
        self._progress = Progress(total)

    def run(self, waiting: dict[str, str], task: Task, arguments: argparse.Namespace) -> None:
        """Segment all images; those of a batch that killed its workers once more, each by itself."""
        settings = {"actors": arguments.actors, "gpu": _on_gpu(task.options, Path(task.engine))}
        total = len(waiting)
        with cluster(arguments.address, actors=arguments.actors), Interruption() as interruption:
            try:
                for batch in (arguments.batch, 1):
                    for row in segmented(waiting, task, batch=batch, **settings) if waiting else ():
                        self._add(row, waiting)
                        self._progress.update(total - len(waiting))
                        if interruption.number is not None or self._ended:
                            break
                    if interruption.number is not None or self._ended:
                        break
                else:
                    for name in waiting:
                        self.fail(name, f"{name}: every worker that had it in hand died", status=3)
                    waiting.clear()
            except EngineError as error:
                self._ended, self.status = str(error), 3
        self._progress.clear()
        if interruption.exit_status is not None:
            self._ended, self.status = "interrupted", interruption.exit_status
        if self._ended:
            self._ended += f", {len(waiting)} images are not done; the same command goes on"

    def say(self) -> None:
        """Notes of all images, and every problem."""
        for note, names in sorted(self._notes.items()):
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            sys.stderr.write(f"note: {len(names)} {note}: {', '.join(map(shown, names[:_NAMES]))}{more}\n")
        sys.stderr.writelines(f"error: {shown(each['problem'])}\n" for each in self.failed)
        if self._ended:
            sys.stderr.write(f"error: {shown(self._ended)}\n")

    def _add(self, row: Mapping[str, Any], waiting: dict[str, str]) -> None:
        name = str(row["name"])
        del waiting[name]
        self.done += row["status"] == "done"
        self.left_out += row["status"] == "left out"
        for note in filter(None, str(row["notes"]).split("\n")):
            self._notes.setdefault(note, []).append(name)
        if row["status"] == "left out":
            self._notes.setdefault("left out, results of an earlier run", []).append(name)
        if row["status"] == "failed":
            self.fail(name, str(row["problem"]), status=3 if row["by_engine"] else 1)
            if row["is_full"]:
                self._ended = "there is no room for results"

    def fail(self, name: str, problem: str, *, status: int) -> None:
        """Count one image that failed."""
        self.failed.append({"image": name, "problem": problem})
        self.status = max(self.status, status)


if __name__ == "__main__":
    run_command(main)
