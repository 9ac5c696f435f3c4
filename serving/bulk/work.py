"""What a worker does: holds an engine, carries images from file to mask, and notes those that are done."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.bulk.storage import Folder, writable
from serving.contract.errors import EngineError, UserError
from serving.contract.files import file_sha256, is_full
from serving.engines.predictor import Predictor
from serving.images.decoding import decode_image
from serving.inference.marks import HEAD_BYTES, mark_of, mark_text, run_name
from serving.render import encode_mask

DONE_FOLDER = "_done"
_SHORT_NAME = 24


@dataclass(frozen=True)
class Task:
    """What every worker is told.

    Attributes:
        engine: path of the engine file, the same on every machine.
        sha256: that it has to have there.
        manifest: of the engine, as JSON.
        runtime, options: as of `Predictor`.
        input, output: URIs of the folders.
        max_pixels: larger images are refused.
    """

    engine: str
    sha256: str
    manifest: str
    runtime: str | None
    options: Mapping[str, object]
    input: str
    output: str
    max_pixels: int

    @property
    def run(self) -> str:
        """Names the results of this engine with these settings: those of another are not taken for done."""
        decisive = ("sha256", "manifest", "runtime", "options", "input")
        return run_name({key: value for key, value in asdict(self).items() if key in decisive})

    def open(self) -> Predictor:
        """The engine, ready.

        Raises:
            UserError: it is missing on this machine, another one, or does not run.
        """
        got = file_sha256(Path(self.engine))
        if got != self.sha256:
            raise UserError(f"{self.engine}: sha256 {got[:16]}... on this machine, {self.sha256[:16]}... was asked for")
        return Predictor(self.engine, runtime=self.runtime, options=self.options)


@dataclass
class Outcome:
    """What became of one image.

    Attributes:
        name: relative to the input.
        status: `done`, `failed` or `left out` (a result of an earlier run).
        problem: in a line, where it failed.
        by_engine: whether the engine failed, and not the reading or writing.
        is_full: whether there is no room for results.
        notes: what was done with the image that its owner may want to know, separated by line breaks.
    """

    name: str
    status: str = "done"
    problem: str = ""
    by_engine: bool = False
    is_full: bool = False
    notes: str = ""


class Worker:
    """Ray keeps one for each process of its pool.

    Args:
        task: what to do.

    Raises:
        UserError: see `Task.open`.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._run = task, task.run
        self._predictor = task.open()
        self._source, self._sink = Folder(task.input), Folder(task.output)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Segment a batch of images, and note those that are done.

        A batch whose worker died on the way is run again by another, which writes its masks over those that were there.

        Args:
            batch: `name` and `version`, arrays as of `Folder.images`.

        Returns:
            The attributes of `Outcome`, a list of each.
        """
        versions = dict(zip(map(str, batch["name"]), map(str, batch["version"]), strict=True))
        outcomes = [self._carry(name) for name in versions]
        done = {each.name: versions[each.name] for each in outcomes if each.status == "done"}
        if done:
            try:
                write_record(self._sink, self._run, done)
            except OSError as error:  # their masks are there, but the next run would not know
                for each in outcomes:
                    if each.status == "done":
                        _fail(each, error)
        rows = [asdict(each) for each in outcomes]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _carry(self, name: str) -> Outcome:
        """Write the mask of one image; whatever fails is said in its outcome."""
        outcome = Outcome(name)
        try:
            content = self._source.read(name)
            if mark_of(content[:HEAD_BYTES]) is not None:
                outcome.status = "left out"
                return outcome
            decoded = decode_image(io.BytesIO(content), name, max_pixels=self._task.max_pixels)
            outcome.notes = "\n".join(decoded.notes)
            mask = self._predictor.predict(decoded.pixels)
            mark = mark_text("mask", self._run)
            self._sink.write(f"{name}.png", encode_mask(mask, self._predictor.manifest.palette, mark=mark))
        except (UserError, OSError, MemoryError) as error:
            _fail(outcome, error)
        return outcome


def write_record(sink: Folder, run: str, done: Mapping[str, str]) -> str:
    """Note images as done; returns the record's name. Raises OSError."""
    record = json.dumps({"run": run, "done": done}, sort_keys=True).encode()
    name = f"{DONE_FOLDER}/{hashlib.sha256(record).hexdigest()[:_SHORT_NAME]}.json"
    sink.write(name, record)
    return name


def done_before(sink: Folder, run: str, versions: Mapping[str, str]) -> set[str]:
    """Images that earlier runs of the same engine, settings and input have finished, and that have not changed since.

    The records of these runs become one: with one for every batch, a large run would take long to go on.

    Args:
        sink: where the results are.
        run: see `Task.run`.
        versions: of the images, as of `Folder.images`.

    Raises:
        UserError: a record cannot be read.
    """
    names = [name for name in sink.names(DONE_FOLDER) if name.endswith(".json")]
    done: dict[str, str] = {}
    own: list[str] = []
    try:
        contents = list(sink.read_all(names))
    except OSError as error:
        raise UserError(f"--output {sink.uri}: what is done cannot be read: {error}") from error
    for name, content in zip(names, contents, strict=True):
        try:
            record = json.loads(content)
            if record["run"] == run:
                own.append(name)
                done.update(record["done"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{sink.uri}/{name}: no record of what is done ({error}); delete it") from error
    if not done:
        return set()
    masks = set(sink.names(""))
    there = {name: version for name, version in done.items() if f"{name}.png" in masks}
    if len(own) > 1:
        with writable(sink):
            merged = write_record(sink, run, there)
            sink.delete_all([name for name in own if name != merged])
    return {name for name, version in there.items() if versions.get(name) == version}


def _fail(outcome: Outcome, error: Exception) -> None:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        reason = "too little memory"
    outcome.problem = reason if reason.startswith(f"{outcome.name}: ") else f"{outcome.name}: {reason}"
    outcome.status, outcome.by_engine, outcome.is_full = "failed", isinstance(error, EngineError), is_full(error)
