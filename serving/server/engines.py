"""The engines that a server offers: each open, tested, and with a queue of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import EngineError, UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import Manifest, read_sidecar
from serving.engines.foreign.onnx_file import read_onnx
from serving.engines.predictor import Predictor
from serving.engines.runtimes import default_runtime
from serving.golden.golden import golden_folder
from serving.golden.selftest import self_test
from serving.server.batching import Answer, Batcher
from serving.server.config import Limits, Refusal

UInt8 = NDArray[np.uint8]

# Batches that are tried at the start, and how much faster one has to be for its latency to be worth it.
_TRIED_BATCHES = (2, 4, 8)
_WORTH = 1.05
_MOST_WORKERS = 8
_TRIAL_S = 0.25
ANY_SIDE = sys.maxsize
_TRIAL_SIZE = 256  # pixels of a side, unless the engine has its own size


@dataclass(frozen=True)
class EngineSettings:
    """How engines run.

    Attributes:
        runtime: name in `RUNTIMES`; None takes the usual one of the file's kind.
        options: of the runtime, without its threads.
        workers: calls of one engine at once; None: one for each thread on a CPU, eight at most, and one on a GPU.
        threads: CPU threads of one engine in all; None: one for each CPU.
        max_batch: images in one call; None measures at the start what is fastest.
        delay_s: how long a batch that is not full waits for more.
    """

    runtime: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    workers: int | None = None
    threads: int | None = None
    max_batch: int | None = None
    delay_s: float = 0.0


class ServedEngine:
    """One engine behind its queue.

    Attributes:
        name: that clients call it by.
        predictor, manifest, sha256: the engine.
        tested: whether it passed its self-test here; `no golden files` where there was nothing to test it with.
        max_batch: images in one call of the engine.
        batcher: its queue.
        arrangement: how it runs, for the log.
    """

    def __init__(self, name: str, path: Path, settings: EngineSettings, limits: Limits) -> None:
        self.name = name
        runtime = settings.runtime or default_runtime(read_sidecar(path).kind)
        workers, options = share(runtime, settings)
        self.predictor = Predictor(path, runtime=runtime, options=options)
        try:
            self.manifest: Manifest = self.predictor.manifest
            self.sha256 = self.manifest.sha256 or file_sha256(path)
            self.tested = _test(self.predictor)
            self._sizes = size_range(self.predictor)
            self.max_batch = settings.max_batch or fastest_batch(self.predictor, workers)
        except BaseException:
            self.predictor.close()
            raise
        self.batcher = Batcher(
            self.predictor.segment,
            workers=workers,
            max_batch=self.max_batch,
            delay_s=settings.delay_s,
            max_images=limits.queue,
            max_pixels=2 * limits.max_pixels,
        )
        self._timeout_s = limits.timeout_s
        self.arrangement: dict[str, object] = {
            "file": str(path),
            "self_test": self.tested,
            "runtime": runtime,
            "options": dict(options),
            "workers": workers,
            "max_batch": self.max_batch,
        }

    async def segment(self, images: Sequence[UInt8]) -> list[Answer]:
        """Segment images of one request.

        Args:
            images: `[H,W,3]` uint8 RGB each.

        Raises:
            Refusal: the queue is full (503), it took too long (504), or the engine failed on an image (422 where its
                size is what the engine does not take, else 500).
        """
        futures = self.batcher.submit(images)
        try:
            async with asyncio.timeout(self._timeout_s):
                return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        except TimeoutError:
            raise Refusal(504, f"not done within {self._timeout_s:g} s; send less at once, or come again") from None
        except EngineError as error:
            self._require_size(images)
            # Without the error's advice: it is for those who start commands, and clients cannot follow it.
            reason = str(error.__cause__) if isinstance(error.__cause__, UserError) else "too little memory"
            raise Refusal(500, f"the engine failed: {reason}") from error
        except UserError as error:
            raise Refusal(422, str(error)) from error
        finally:
            self.batcher.withdraw(futures)

    def _require_size(self, images: Sequence[UInt8]) -> None:
        """Raise Refusal (422) where an image has a size that the engine is not made for, as far as that can be told."""
        sizes = self._sizes
        if sizes is None or self.manifest.input.resize is not None:
            return
        stride = self.manifest.input.stride
        for image in images:
            padded = [-(-side // stride) * stride for side in image.shape[:2]]
            if not all(low <= side <= high for side, low, high in zip(padded, *sizes, strict=True)):
                takes = " and ".join(
                    f"{name} {low if low == high else f'{low}..{high}'}"
                    for name, low, high in zip(("height", "width"), *sizes, strict=True)
                    if high < ANY_SIDE
                )
                got = "x".join(map(str, image.shape[:2]))
                raise Refusal(422, f"image: this engine takes {takes}, got {got}; resize it, or cut it into parts")

    def close(self) -> None:
        """Finish what waits, and free the engine."""
        self.batcher.close()
        self.predictor.close()


def open_engines(
    paths: Sequence[Path], names: Sequence[str], settings: EngineSettings, limits: Limits
) -> dict[str, ServedEngine]:
    """Open and test every engine, in order; none stays open where one fails.

    Args:
        paths: engine files.
        names: one each, no two alike.
        settings: of all of them.
        limits: of the server.

    Raises:
        UserError: an engine cannot be opened, or fails its self-test.
    """
    engines: dict[str, ServedEngine] = {}
    try:
        for path, name in zip(paths, names, strict=True):
            engines[name] = ServedEngine(name, path, settings, limits)
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise
    return engines


def choose_names(manifests: Sequence[Manifest], given: Sequence[str]) -> list[str]:
    """What clients call the engines by: the names given, or else those of the manifests.

    Raises:
        UserError: another number of names than engines, two alike, or one that no address can hold.
    """
    if given and len(given) != len(manifests):
        raise UserError(f"--name: expected one for each of {len(manifests)} engines, in their order, got {len(given)}")
    names = list(given) or [manifest.name for manifest in manifests]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(
            f"engines of one name: {', '.join(repeated)}; give each its own, in their order: --name A --name B"
        )
    unfit = [name for name in names if not name.isprintable() or not name.strip() or "/" in name or name in (".", "..")]
    if unfit:
        raise UserError(f"names: expected printable text without a slash, got {unfit[0]!r}; choose others by --name")
    return names


def share(runtime: str, settings: EngineSettings) -> tuple[int, dict[str, object]]:
    """How many calls of an engine go at once, and the runtime's options with which they share the CPUs.

    Calls that share nothing are faster than operators cut into pieces, so that each gets its part of the threads.
    """
    options = dict(settings.options)
    if runtime == "tensorrt" or options.get("provider", "cpu") != "cpu" or options.get("device", "CPU") != "CPU":
        threads = {} if settings.threads is None else {"threads": settings.threads}
        return settings.workers or 1, threads | options
    total = settings.threads or cpu_count()
    workers = settings.workers or min(total, _MOST_WORKERS)
    shared: dict[str, object] = {"threads": max(total // workers, 1)}
    if runtime == "openvino" and workers > 1:
        shared = {"threads": total, "mode": "throughput", "streams": workers}
    return workers, shared | options


def fastest_batch(predictor: Predictor, workers: int) -> int:
    """How many images one call should take: measured here, with as many calls at once as there will be."""
    least, most = predictor.runtime.batch_range
    if least > 1 or most == 1:
        return most or least
    height, width = predictor.manifest.input.resize or (_TRIAL_SIZE, _TRIAL_SIZE)
    sizes = size_range(predictor)
    if sizes is not None:
        height, width = (min(max(side, low), high) for side, low, high in zip((height, width), *sizes, strict=True))
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    best, best_rate = 1, _images_per_second(predictor, image, 1, workers)
    for batch in _TRIED_BATCHES:
        if most is not None and batch > most:
            break
        rate = _images_per_second(predictor, image, batch, workers)
        if rate < _WORTH * best_rate:
            break
        best, best_rate = batch, rate
    return best


def size_range(predictor: Predictor) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Height and width that an engine takes, at least and at most, as its runtime or its file says; None: any."""
    known = predictor.runtime.size_range
    if known is not None or predictor.manifest.kind != "onnx":
        return known
    shape = read_onnx(predictor.engine_path).inputs[0].shape
    if shape is None:
        return None
    first = 1 if predictor.manifest.input.layout == "NHWC" else 2
    (low, high), (left, right) = (
        (side, side) if isinstance(side, int) else (1, ANY_SIDE) for side in shape[first:][:2]
    )
    return None if high == right == ANY_SIDE else ((low, left), (high, right))


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _test(predictor: Predictor) -> Literal["passed", "no golden files"]:
    """Run the self-test, where there is something to test with. Raises UserError where it fails."""
    if not golden_folder(predictor.engine_path).is_dir():
        return "no golden files"
    result = self_test(predictor)
    if not result.passed:
        raise UserError(f"{predictor.engine_path}: the self-test failed: {'; '.join(result.problems)}")
    return "passed"


def _images_per_second(predictor: Predictor, image: UInt8, batch: int, workers: int) -> float:
    images = [image] * batch
    predictor.segment(images)  # the first of a shape prepares buffers

    def run(_: int) -> int:
        done, until = 0, time.perf_counter() + _TRIAL_S
        while time.perf_counter() < until or not done:
            predictor.segment(images)
            done += batch
        return done

    with ThreadPoolExecutor(workers) as pool:
        start = time.perf_counter()
        done = sum(pool.map(run, range(workers)))
        return done / (time.perf_counter() - start)
