"""One engine's numbers: latency of one image, throughput of batches, and the way from image to mask and back.

Every engine is measured in several fresh sessions, and the sessions of all engines take turns
(`export.latency.benchmark`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.latency.config import ProfileConfig
from export.latency.latency import Batch, Clock, WarmUp, measure, percentiles_ms, quiet, warm_up
from pipeline.evaluation.intervals import Interval, clustered_mean
from serving.contract.errors import UserError
from serving.contract.manifest import Manifest, read_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes import RUNTIMES
from serving.engines.runtimes.runtime import Runtime
from serving.engines.tensors import to_input
from serving.images.geometry import place, resize_image

UInt8 = NDArray[np.uint8]

_MIN_THROUGHPUT_QUERIES = 3
_SPLIT_QUERIES = 20
_RESAMPLES = 2000


@dataclass(frozen=True)
class Engine:
    """One row of the benchmark: an engine file and how it is run.

    Attributes:
        method, seed, target: which row.
        path: the engine file, its manifest beside it.
        sha256: of the file whose accuracy was measured.
        runtime: name in RUNTIMES.
        options: of the runtime.
    """

    method: str
    seed: int
    target: str
    path: Path
    sha256: str
    runtime: str
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`method-sSEED/target`, for messages and the file of raw samples."""
        return f"{self.method}-s{self.seed}/{self.target}"

    def manifest(self) -> Manifest:
        """The manifest beside the engine.

        Raises:
            UserError: there is none, or it is of another file than the one whose accuracy was measured.
        """
        manifest = read_sidecar(self.path)
        if manifest.sha256 != self.sha256:
            raise UserError(
                f"{self.path}: its manifest names sha256 {str(manifest.sha256)[:16]}..., but the accuracy was measured "
                f"on {self.sha256[:16]}...; run verify again"
            )
        return manifest

    def open(self) -> Runtime:
        """A fresh session; the runtime compares the file with its hash before it loads it."""
        return RUNTIMES.resolve(self.runtime).open(self.path, self.manifest(), self.options)


def input_batches(
    manifest: Manifest, images: Sequence[UInt8], *, input_size: tuple[int, int] | None, batch_size: int
) -> list[Batch]:
    """Tensors of one shape, made of the images in turn.

    Args:
        manifest: of the engine.
        images: `[H,W,3]` uint8 RGB.
        input_size: (height, width) that every image is resized to; None takes the manifest's, else the first image's.
        batch_size: images per tensor.
    """
    size = input_size or manifest.input.resize or (images[0].shape[0], images[0].shape[1])
    placed = [place(image, stride=manifest.input.stride, resize=size)[0] for image in images]
    batches = []
    for start in range(len(placed)):
        chosen = [placed[(start + offset) % len(placed)] for offset in range(batch_size)]
        batches.append(np.ascontiguousarray(to_input(np.stack(chosen), manifest.input)))
    return batches


class EngineMeasurement:
    """Collects the sessions of one engine and sums them up.

    Args:
        engine: what is measured.
        images: `[H,W,3]` uint8 RGB that the queries cycle through.
        input_size: see `input_batches`.
        batch_sizes: for throughput.
        profile: how thorough.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        engine: Engine,
        images: Sequence[UInt8],
        *,
        input_size: tuple[int, int] | None,
        batch_sizes: Sequence[int],
        profile: ProfileConfig,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self.engine = engine
        self.failure: str | None = None
        self.samples: list[NDArray[np.int64]] = []
        self._images = list(images)
        self._input_size = input_size
        self._batch_sizes = tuple(batch_sizes)
        self._profile = profile
        self._clock = clock
        self._warm_ups: list[WarmUp] = []
        self._throughput: dict[int, list[tuple[int, int]]] = {}
        self._refused: dict[int, str] = {}
        self._shape: list[int] = []
        self._description: dict[str, object] = {}
        self._device_ms: dict[str, list[float]] = {}
        self._split: dict[str, list[float]] = {}

    def run_session(self) -> None:
        """Open a fresh session, warm it up, measure its share and close it. A refusal is kept as `failure`."""
        try:
            manifest = self.engine.manifest()
            with self.engine.open() as session, quiet():
                self._run_latency(session, manifest)
                for batch_size in self._batch_sizes:
                    self._run_throughput(session, manifest, batch_size)
        except UserError as error:
            self.failure = str(error)

    def run_split(self) -> None:
        """Time preprocessing, engine and postprocessing through serving's predictor on whole images."""
        images = self._images
        if self._input_size is not None:
            images = [resize_image(image, *self._input_size) for image in images]
        try:
            with Predictor(self.engine.path, runtime=self.engine.runtime, options=self.engine.options) as predictor:
                warm_up(
                    lambda: predictor.predict(images[0]),
                    clock=self._clock,
                    max_seconds=self._profile.warm_up_seconds,
                )
                with quiet():
                    for index in range(_SPLIT_QUERIES):
                        predictor.predict(images[index % len(images)])
                        for name, value in predictor.timings_ms.items():
                            self._split.setdefault(name, []).append(value)
        except UserError as error:
            self.failure = str(error)

    def result(self, generator: np.random.Generator) -> dict[str, Any]:
        """The row of benchmark.json; a `failed` one holds the reason and no number."""
        row: dict[str, Any] = {
            "method": self.engine.method,
            "seed": self.engine.seed,
            "target": self.engine.target,
            "sha256": self.engine.sha256,
            "status": "failed" if self.failure else "ok",
            "reason": self.failure,
        }
        if self.failure:
            return row
        queries = sum(len(samples) for samples in self.samples)
        seconds = sum(int(samples.sum()) for samples in self.samples) / 1e9
        percentiles = percentiles_ms(self.samples, generator=generator)
        sessions = [
            {"queries": len(samples), "p50_ms": float(np.median(samples)) / 1e6, "warm_up": dataclasses.asdict(warm)}
            for samples, warm in zip(self.samples, self._warm_ups, strict=True)
        ]
        return row | {
            "runtime": self._description,
            "input_shape": self._shape,
            "latency_ms": {name: _plain(interval) for name, interval in percentiles.items()},
            "queries": queries,
            "seconds": seconds,
            "complete": queries >= self._profile.min_queries and seconds >= self._profile.min_seconds - 1e-6,
            "stable": all(warm.stable for warm in self._warm_ups),
            "sessions": sessions,
            "throughput": [self._throughput_row(batch_size, generator) for batch_size in self._batch_sizes],
            "split_ms": {name: float(np.median(values)) for name, values in self._split.items()},
            "device_ms": {name: float(np.median(values)) for name, values in self._device_ms.items()},
        }

    def _run_latency(self, session: Runtime, manifest: Manifest) -> None:
        least, _ = session.batch_range
        batches = input_batches(manifest, self._images, input_size=self._input_size, batch_size=least)
        self._shape = list(batches[0].shape)
        self._description = session.what_runs()
        timed = _Timed(session)
        self._warm_ups.append(
            warm_up(lambda: session.infer(batches[0]), clock=self._clock, max_seconds=self._profile.warm_up_seconds)
        )
        share, bound = self._profile.sessions, self._profile.max_seconds
        samples = measure(
            timed,
            batches,
            min_seconds=self._profile.min_seconds / share,
            min_queries=math.ceil(self._profile.min_queries / share),
            max_seconds=None if bound is None else bound / share,
            clock=self._clock,
        )
        self.samples.append(samples)
        for name, values in timed.parts.items():
            self._device_ms.setdefault(name, []).extend(values)

    def _run_throughput(self, session: Runtime, manifest: Manifest, batch_size: int) -> None:
        least, most = session.batch_range
        if batch_size < least or (most is not None and batch_size > most):
            self._refused[batch_size] = f"the engine takes batches of {least} to {most if most is not None else 'any'}"
            return
        batches = input_batches(manifest, self._images, input_size=self._input_size, batch_size=batch_size)
        try:
            warm_up(
                lambda: session.infer(batches[0]),
                clock=self._clock,
                window=2,
                max_seconds=self._profile.warm_up_seconds,
            )
            samples = measure(
                session,
                batches,
                min_seconds=self._profile.throughput_seconds / self._profile.sessions,
                min_queries=_MIN_THROUGHPUT_QUERIES,
                clock=self._clock,
            )
        except UserError as error:  # out of memory, or a batch size that an engine was not built for
            self._refused[batch_size] = str(error)
            return
        self._throughput.setdefault(batch_size, []).append((len(samples) * batch_size, int(samples.sum())))

    def _throughput_row(self, batch_size: int, generator: np.random.Generator) -> dict[str, Any]:
        measured = self._throughput.get(batch_size, [])
        if batch_size in self._refused or not measured:
            return {"batch_size": batch_size, "images_per_second": None, "reason": self._refused.get(batch_size)}
        rates = np.asarray([images / nanoseconds * 1e9 for images, nanoseconds in measured])
        interval = clustered_mean(rates, resamples=_RESAMPLES, generator=generator)
        return {"batch_size": batch_size, "images_per_second": _plain(interval), "reason": None}


class _Timed:
    """A session that remembers what its runtime measured inside each query, such as the time on the device."""

    def __init__(self, session: Runtime) -> None:
        self._session = session
        self.parts: dict[str, list[float]] = {}

    def infer(self, batch: Batch) -> dict[str, NDArray[Any]]:
        outputs = self._session.infer(batch)
        for name, value in self._session.last_timings_ms.items():
            self.parts.setdefault(name, []).append(value)
        return outputs

    def close(self) -> None:
        self._session.close()


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {"value": interval.value, "low": interval.low, "high": interval.high}
