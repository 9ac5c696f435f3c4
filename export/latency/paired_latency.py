"""Comparing the latency of two engines: fresh session pairs, opened in random order, measured in mirrored blocks.

Three things would otherwise pass for a difference between the engines:

- *Placement.* Where a session's weights and buffers land in memory shifts its latency by up to 2 % for as long as it
  lives. Hence many fresh pairs, the unit of the statistics (`pipeline.evaluation.intervals`); and before each session
  opens, memory of a random size is taken and touched, or else the allocator would hand every pair the blocks that the
  pair before gave back, and the pairs would be one draw repeated.
- *Order of opening.* Which of the two opens, and warms up, first is random and balanced over the pairs: whatever the
  first place is worth, it falls to both engines equally often.
- *Time.* Clocks, temperature and other work on the machine drift. A block is ABBA or BAAB, at random and balanced: a
  drift that is linear over four queries cancels exactly, one block sees one input image, and each engine follows itself
  and the other equally often.

What remains: an engine whose *weights* are slower data (denormal numbers, power) is truly slower and is reported so;
interference that lasts for a whole pair and hits the two engines differently widens the interval, as it should.
"""

from __future__ import annotations

import dataclasses
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.latency.latency import Batch, Clock, Opener, Session, WarmUp, quiet, warm_up
from pipeline.evaluation.intervals import Interval, clustered_quantiles
from serving.contract.errors import UserError

_BALLAST_BYTES = 8 << 20
_BALLAST_SMALL = 64
_PAGE = 4096
_BASELINE, _OTHER = 0, 1


@dataclass(frozen=True)
class PairSamples:
    """The raw measurements of one fresh pair of sessions.

    Attributes:
        latencies_ns: `[blocks, 4]` int64: baseline, baseline, other, other; the earlier query first.
        baseline_first: `[blocks]` bool: the block ran as ABBA (A is the baseline), else as BAAB.
        baseline_opened_first: whether the baseline's session was opened before the other's.
        variant: which of the comparison's engine pairs was measured (several seeds take turns).
        baseline_warm_up: warm-up of the baseline's session.
        other_warm_up: warm-up of the other session.
    """

    latencies_ns: NDArray[np.int64]
    baseline_first: NDArray[np.bool_]
    baseline_opened_first: bool
    variant: int
    baseline_warm_up: WarmUp
    other_warm_up: WarmUp

    @property
    def log_ratios(self) -> NDArray[np.float64]:
        """`[blocks]`: logarithm of the other's latency over the baseline's, block by block."""
        baseline = self.latencies_ns[:, :2].sum(axis=1)
        other = self.latencies_ns[:, 2:].sum(axis=1)
        return np.asarray(np.log(other / baseline), dtype=np.float64)


@dataclass(frozen=True)
class SessionComparison:
    """Two engines to compare, or one with itself.

    Attributes:
        name: what is compared with the baseline (`control` for the baseline itself).
        variants: (baseline, other) openers, one per seed; the pairs take them in turn.
    """

    name: str
    variants: tuple[tuple[Opener, Opener], ...]


@dataclass(frozen=True)
class PairPlan:
    """How much is measured.

    Attributes:
        looks: rising numbers of pairs after which `decided` is asked; the last is the bound.
        pair_seconds: measured time per pair.
        min_blocks: blocks per pair, however long they take.
        warm_up_seconds: bound of each session's warm-up.
    """

    looks: tuple[int, ...]
    pair_seconds: float
    min_blocks: int
    warm_up_seconds: float = 1.0


def measure_comparisons(
    comparisons: Sequence[SessionComparison],
    batches: Sequence[Batch],
    plan: PairPlan,
    *,
    decided: Callable[[Mapping[str, Sequence[PairSamples]]], bool],
    generator: np.random.Generator,
    clock: Clock = time.perf_counter_ns,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[PairSamples]]:
    """Measure all comparisons in one run, one fresh pair of each at a time, in random order.

    Args:
        comparisons: what to compare; the control beside the others, so that it meets the same conditions.
        batches: input batches `uint8 [B,H,W,3]`; each block takes the next.
        plan: how much is measured.
        decided: asked after each look with everything measured so far; True ends the measurement.
        generator: source of every random choice.
        clock: monotonic nanoseconds.
        progress: called with (rounds done, rounds of this look).

    Returns:
        The pairs of each comparison, the same number for all.
    """
    result: dict[str, list[PairSamples]] = {comparison.name: [] for comparison in comparisons}
    opened_first = {comparison.name: _balanced(plan.looks[-1], generator) for comparison in comparisons}
    done = 0
    for look in plan.looks:
        with quiet():
            for round_index in range(done, look):
                for index in generator.permutation(len(comparisons)):
                    comparison = comparisons[int(index)]
                    variant = round_index % len(comparison.variants)
                    first = bool(opened_first[comparison.name][round_index])
                    pair = _measure_pair(
                        comparison.variants[variant], batches, plan, first, variant, generator=generator, clock=clock
                    )
                    result[comparison.name].append(pair)
                if progress is not None:
                    progress(round_index + 1, look)
        done = look
        if decided(result):
            break
    return result


def median_ratio(
    pairs: Sequence[PairSamples], *, resamples: int, generator: np.random.Generator, confidence: float
) -> Interval:
    """Median over all blocks of the other's latency relative to the baseline's, with an interval clustered by pair."""
    clusters = [pair.log_ratios for pair in pairs]
    interval = clustered_quantiles(clusters, [0.5], resamples=resamples, generator=generator, confidence=confidence)[0]
    return Interval(float(np.exp(interval.value)), float(np.exp(interval.low)), float(np.exp(interval.high)))


def save_samples(
    path: Path,
    pairs: Mapping[str, Sequence[PairSamples]],
    sessions: Mapping[str, Sequence[NDArray[np.int64]]] | None = None,
) -> None:
    """Write raw samples as one compressed npz file.

    Args:
        path: of the file.
        pairs: comparison -> its session pairs, as `pairs/NAME/INDEX/FIELD`.
        sessions: engine -> `[queries]` nanoseconds per session, as `engines/NAME/INDEX`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, samples in pairs.items():
        for index, pair in enumerate(samples):
            prefix = f"pairs/{name}/{index:04d}"
            arrays[f"{prefix}/latencies_ns"] = pair.latencies_ns
            arrays[f"{prefix}/baseline_first"] = pair.baseline_first
            arrays[f"{prefix}/session"] = np.asarray([pair.baseline_opened_first, pair.variant], dtype=np.int64)
            warm_ups = (pair.baseline_warm_up, pair.other_warm_up)
            arrays[f"{prefix}/warm_up"] = np.asarray([dataclasses.astuple(each) for each in warm_ups], dtype=np.float64)
    for name, latencies in (sessions or {}).items():
        for index, values in enumerate(latencies):
            arrays[f"engines/{name}/{index:04d}"] = values
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_pairs(path: Path) -> dict[str, list[PairSamples]]:
    """The session pairs that `save_samples` wrote. Raises UserError when the file is missing or damaged."""
    result: dict[str, list[PairSamples]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            prefixes = sorted({key.rpartition("/")[0] for key in arrays.files if key.startswith("pairs/")})
            for prefix in prefixes:
                result.setdefault(prefix.split("/", 1)[1].rpartition("/")[0], []).append(_load_pair(arrays, prefix))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the output of `benchmark`: run it first") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not the samples of a benchmark ({error}); run `benchmark` again") from None
    return result


def _load_pair(arrays: Mapping[str, NDArray[Any]], prefix: str) -> PairSamples:
    first, variant = arrays[f"{prefix}/session"]
    warm_ups = [WarmUp(int(q), float(s), bool(stable), float(d)) for q, s, stable, d in arrays[f"{prefix}/warm_up"]]
    return PairSamples(
        latencies_ns=arrays[f"{prefix}/latencies_ns"],
        baseline_first=arrays[f"{prefix}/baseline_first"],
        baseline_opened_first=bool(first),
        variant=int(variant),
        baseline_warm_up=warm_ups[0],
        other_warm_up=warm_ups[1],
    )


def _measure_pair(
    openers: tuple[Opener, Opener],
    batches: Sequence[Batch],
    plan: PairPlan,
    baseline_opened_first: bool,
    variant: int,
    *,
    generator: np.random.Generator,
    clock: Clock,
) -> PairSamples:
    sessions: dict[int, Session] = {}
    warm_ups: dict[int, WarmUp] = {}
    ballast: list[object] = []
    order = (_BASELINE, _OTHER) if baseline_opened_first else (_OTHER, _BASELINE)
    try:
        for side in order:
            ballast.append(_ballast(generator))
            sessions[side] = openers[side]()
        for side in order:
            query = partial(sessions[side].infer, batches[0])
            warm_ups[side] = warm_up(query, clock=clock, max_seconds=plan.warm_up_seconds)
        baseline, other = sessions[_BASELINE], sessions[_OTHER]
        latencies, baseline_first = _measure_blocks(baseline, other, batches, plan, generator, clock)
    finally:
        for session in sessions.values():
            session.close()
    return PairSamples(latencies, baseline_first, baseline_opened_first, variant, warm_ups[_BASELINE], warm_ups[_OTHER])


def _measure_blocks(
    baseline: Session,
    other: Session,
    batches: Sequence[Batch],
    plan: PairPlan,
    generator: np.random.Generator,
    clock: Clock,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    blocks: list[list[int]] = []
    order: list[bool] = []
    pending: list[bool] = []
    start = clock()
    while pending or len(blocks) < plan.min_blocks or (clock() - start) / 1e9 < plan.pair_seconds:
        pending = pending or list(map(bool, _balanced(2, generator)))
        baseline_first = pending.pop()
        batch = batches[len(blocks) % len(batches)]
        outer, inner = (baseline, other) if baseline_first else (other, baseline)
        t0 = clock()
        outer.infer(batch)
        t1 = clock()
        inner.infer(batch)
        t2 = clock()
        inner.infer(batch)
        t3 = clock()
        outer.infer(batch)
        t4 = clock()
        outside, inside = [t1 - t0, t4 - t3], [t2 - t1, t3 - t2]
        blocks.append([*outside, *inside] if baseline_first else [*inside, *outside])
        order.append(baseline_first)
    return np.asarray(blocks, dtype=np.int64), np.asarray(order, dtype=np.bool_)


def _balanced(count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """`count` random truth values, one of each kind in every two: balanced wherever the measurement stops."""
    coins = generator.integers(0, 2, size=(count + 1) // 2).astype(bool)
    return np.stack([coins, ~coins], axis=1).reshape(-1)[:count]


def _ballast(generator: np.random.Generator) -> object:
    """Memory to hold while a session opens: a large part that shifts pages, and small ones that shift the heap."""
    large = np.empty(int(generator.integers(_PAGE, _BALLAST_BYTES)), dtype=np.uint8)
    large[::_PAGE] = 1  # touched, or no physical page is taken
    small = [
        bytearray(int(size)) for size in generator.integers(16, _PAGE, size=int(generator.integers(_BALLAST_SMALL)))
    ]
    return large, small
