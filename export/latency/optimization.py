"""Which graph optimisation level of ONNX Runtime runs an engine fastest: the levels take turns in fresh sessions.

A level decides which kernels run, and kernels round differently: the masks of two levels may differ in pixels. So what
is measured here changes no engine. A target runs at the level of its options, in the checks as in the benchmark; where
another level is faster, the record names it, and once it stands in params.yaml the checks examine the engine at it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.latency.config import ProfileConfig
from export.latency.engine_latency import Engine, UInt8, input_batches
from export.latency.latency import Clock, quiet, warm_up
from pipeline.evaluation.intervals import clustered_quantiles, confidence_per_look
from serving.contract.errors import UserError

USED_BY_DEFAULT = "all"
# Two sessions of one file differ by up to 2 % for their whole life: a level that gains less is not called faster.
MARGIN = 0.02
_RESAMPLES = 2000


def has_levels(engine: Engine) -> bool:
    """Whether ONNX Runtime itself optimises the graph; a provider in a package of its own compiles it as a whole."""
    return engine.runtime == "onnxruntime" and engine.options.get("provider") != "plugin"


class LevelComparison:
    """One engine at several levels, each compared with the one that its options name.

    Args:
        engine: what is measured.
        images: `[H,W,3]` uint8 RGB that the rounds cycle through.
        input_size: see `input_batches`.
        levels: as `OnnxRuntimeOptions.optimization` names them.
        profile: how thorough.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        engine: Engine,
        images: Sequence[UInt8],
        *,
        input_size: tuple[int, int] | None,
        levels: Sequence[str],
        profile: ProfileConfig,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self.engine = engine
        self.failure: str | None = None
        self.used = str(engine.options.get("optimization", USED_BY_DEFAULT))
        self._levels = tuple(dict.fromkeys((self.used, *levels)))
        self._images, self._input_size = list(images), input_size
        self._profile, self._clock = profile, clock
        self._log_ratios: dict[str, list[NDArray[np.float64]]] = {level: [] for level in self._levels[1:]}

    def run_group(self, generator: np.random.Generator) -> None:
        """Open a fresh session of every level and measure them in turns. A refusal is kept as `failure`."""
        try:
            manifest = self.engine.manifest()
            with ExitStack() as stack, quiet():
                sessions = {}
                for place in generator.permutation(len(self._levels)):
                    level = self._levels[int(place)]
                    options = {**self.engine.options, "optimization": level}
                    sessions[level] = stack.enter_context(dataclasses.replace(self.engine, options=options).open())
                least, _ = sessions[self.used].batch_range
                batches = input_batches(manifest, self._images, input_size=self._input_size, batch_size=least)
                for session in sessions.values():
                    query = partial(session.infer, batches[0])
                    warm_up(query, clock=self._clock, window=2, max_seconds=self._profile.warm_up_seconds)
                taken: dict[str, list[int]] = {level: [] for level in self._levels}
                start = self._clock()
                while self._goes_on(len(taken[self.used]), start):
                    batch = batches[len(taken[self.used]) % len(batches)]
                    for place in generator.permutation(len(self._levels)):
                        level = self._levels[int(place)]
                        before = self._clock()
                        sessions[level].infer(batch)
                        taken[level].append(self._clock() - before)
        except UserError as error:
            self.failure = str(error)
            return
        for level, found in self._log_ratios.items():
            found.append(np.log(np.asarray(taken[level]) / np.asarray(taken[self.used])))

    def result(self, generator: np.random.Generator) -> dict[str, Any]:
        """The entry of benchmark.json; a `failed` one holds the reason and no number.

        `ratios` are medians of the level's latency over that of the level used, round by round, with intervals that
        hold together at 95 %, clustered by group of sessions. `faster` is the fastest of those whose whole interval
        lies below 1 - `MARGIN`; None where there is none.
        """
        entry = {
            "method": self.engine.method,
            "seed": self.engine.seed,
            "sha256": self.engine.sha256,
            "status": "failed" if self.failure else "ok",
            "reason": self.failure,
            "used": self.used,
        }
        if self.failure:
            return entry
        ratios = {}
        for level, clusters in self._log_ratios.items():
            interval = clustered_quantiles(
                clusters,
                [0.5],
                resamples=_RESAMPLES,
                generator=generator,
                confidence=confidence_per_look(len(self._log_ratios)),
            )[0]
            values = {"value": interval.value, "low": interval.low, "high": interval.high}
            ratios[level] = {name: float(np.exp(value)) for name, value in values.items()}
        better = [level for level, ratio in ratios.items() if ratio["high"] < 1 - MARGIN]
        rounds = sum(len(cluster) for cluster in next(iter(self._log_ratios.values()), []))
        faster = min(better, key=lambda level: ratios[level]["value"], default=None)
        return entry | {"rounds": rounds, "ratios": ratios, "faster": faster}

    def _goes_on(self, rounds: int, start: int) -> bool:
        seconds = (self._clock() - start) / 1e9
        return rounds < self._profile.min_blocks or seconds < self._profile.pair_seconds


def plan_comparisons(
    engines: Sequence[Engine],
    images: Sequence[UInt8],
    *,
    input_size: tuple[int, int] | None,
    levels: Sequence[str],
    profile: ProfileConfig,
    clock: Clock,
) -> list[LevelComparison]:
    """One comparison for each target that has levels: its options are those of all methods and seeds.

    Args:
        engines: that are measured; the first of each target stands for it.
        images: see `LevelComparison`.
        input_size: see `LevelComparison`.
        levels: see `LevelComparison`; none: nothing is compared.
        profile: see `LevelComparison`.
        clock: see `LevelComparison`.
    """
    if not levels:
        return []
    first: dict[str, Engine] = {}
    for engine in engines:
        if has_levels(engine):
            first.setdefault(engine.target, engine)
    return [
        LevelComparison(engine, images, input_size=input_size, levels=levels, profile=profile, clock=clock)
        for engine in first.values()
    ]
