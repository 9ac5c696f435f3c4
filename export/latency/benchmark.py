"""The benchmark run: every engine alone, every method beside the baseline, the stopwatch tested before and after."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.latency.config import BenchmarkConfig, CertifyConfig, ProfileConfig
from export.latency.engine_latency import Engine, EngineMeasurement, UInt8, input_batches
from export.latency.latency import Clock, StopwatchCheck, check_stopwatch
from export.latency.optimization import LevelComparison, plan_comparisons
from export.latency.paired_latency import PairPlan, PairSamples, SessionComparison, measure_comparisons, median_ratio
from export.machine import load as machine
from export.machine.gpu_watch import GpuWatch
from export.targets.config import CONTROL
from pipeline.evaluation.intervals import confidence_per_look, equivalence
from serving.contract.errors import UserError
from serving.engines.runtimes.tensorrt.plan import PlanDetails

SCHEMA = 1

Progress = Callable[[str, int, int], None]
ENVIRONMENT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "KMP_AFFINITY")


@dataclass(frozen=True)
class BenchmarkResult:
    """What the stage writes.

    Attributes:
        summary: benchmark.json.
        samples: raw latencies per engine, `[queries]` int64 nanoseconds per session.
        pairs: raw session pairs per comparison.
    """

    summary: dict[str, Any]
    samples: dict[str, list[NDArray[np.int64]]]
    pairs: dict[str, list[PairSamples]]


def run_benchmark(
    engines: Sequence[Engine],
    images: Sequence[UInt8],
    *,
    config: BenchmarkConfig,
    profile_name: str,
    certify: CertifyConfig,
    hardware_sha256: str,
    clock: Clock = time.perf_counter_ns,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Measure all engines in one run.

    Args:
        engines: whose accuracy was measured; those of `certify.target` are also compared with the baseline's.
        images: `[H,W,3]` uint8 RGB validation images.
        config: settings.
        profile_name: `quick` or `release`.
        certify: names baseline, target and margin (a release goes on until the margin is decided).
        hardware_sha256: of the machine, from device.json.
        clock: monotonic nanoseconds.
        progress: called with (what, done, of how many).

    Returns:
        The result. When the stopwatch is wrong every row is `failed` and no latency is given.
    """
    profile = config.profile(profile_name)
    generator = np.random.default_rng(config.seed)
    tests = [check_stopwatch(clock=clock)]
    before = machine.look()
    measurements = [
        EngineMeasurement(
            engine,
            images,
            input_size=config.input_size,
            batch_sizes=config.batch_sizes,
            profile=profile,
            clock=clock,
        )
        for engine in engines
    ]
    comparisons: dict[str, Any] = {}
    pairs: dict[str, list[PairSamples]] = {}
    levels: list[LevelComparison] = []
    watch = GpuWatch()
    if tests[0].passed:
        with watch:
            _measure_alone(measurements, profile, generator, progress)
            failed = {measurement.engine.name for measurement in measurements if measurement.failure}
            plans, comparisons = _plan_comparisons([e for e in engines if e.name not in failed], certify)
            if plans:
                try:
                    pairs = _compare(plans, images, config, profile, certify, generator, clock, progress)
                except UserError as error:
                    for entry in comparisons.values():
                        entry.update(status="failed", reason=str(error))
            levels = plan_comparisons(
                [engine for engine in engines if engine.name not in failed],
                images,
                input_size=config.input_size,
                levels=config.optimization_levels,
                profile=profile,
                clock=clock,
            )
            _compare_levels(levels, profile, generator, progress)
        tests.append(check_stopwatch(clock=clock))
    after = machine.look()
    if not all(test.passed for test in tests):
        pairs = {}
        for measurement in measurements:
            measurement.failure = measurement.failure or _refusal(tests)
        for entry in comparisons.values():
            entry.update(status="failed", reason=_refusal(tests))
        levels = []
    for name, samples in pairs.items():
        comparisons[name]["pairs"] = len(samples)
    summary = {
        "schema": SCHEMA,
        "profile": profile_name,
        "hardware_sha256": hardware_sha256,
        "self_test": [dataclasses.asdict(test) | {"passed": test.passed} for test in tests],
        "clock": _clock_description(),
        "machine": machine.between(before, after) | watch.record(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "settings": dataclasses.asdict(profile) | {"looks": list(profile.looks), "seed": config.seed},
        "targets": [measurement.result(generator) for measurement in measurements],
        "comparisons": comparisons,
        "optimization": {each.engine.target: each.result(generator) for each in levels},
    }
    raw = {m.engine.name: m.samples for m in measurements if not m.failure}
    return BenchmarkResult(summary, raw, pairs)


def _measure_alone(
    measurements: Sequence[EngineMeasurement],
    profile: ProfileConfig,
    generator: np.random.Generator,
    progress: Progress | None,
) -> None:
    """One fresh session of every engine per round, in random order: what changes over time meets all engines alike."""
    for index in range(profile.sessions):
        for place in generator.permutation(len(measurements)):
            measurement = measurements[int(place)]
            if measurement.failure is None:
                measurement.run_session()
        if progress is not None:
            progress("engines", index + 1, profile.sessions)
    for measurement in measurements:
        if measurement.failure is None:
            measurement.run_split()


def _compare_levels(
    comparisons: Sequence[LevelComparison],
    profile: ProfileConfig,
    generator: np.random.Generator,
    progress: Progress | None,
) -> None:
    """Fresh sessions of every target at every level, as often as engines get them."""
    for index in range(profile.sessions if comparisons else 0):
        for comparison in comparisons:
            if comparison.failure is None:
                comparison.run_group(generator)
        if progress is not None:
            progress("optimisation levels", index + 1, profile.sessions)


def _plan_comparisons(
    engines: Sequence[Engine], certify: CertifyConfig
) -> tuple[list[tuple[str, tuple[tuple[Engine, Engine], ...]]], dict[str, Any]]:
    """(name, (baseline, other) per seed) of the control and of every method, and their entries in benchmark.json."""
    certified = {(engine.method, engine.seed): engine for engine in engines if engine.target == certify.target}
    seeds = sorted({seed for method, seed in certified if method == certify.baseline})
    if not seeds:
        return [], {}
    baselines = [certified[certify.baseline, seed] for seed in seeds]
    plans = [(CONTROL, tuple((engine, engine) for engine in baselines))]
    for method in dict.fromkeys(engine.method for engine in engines):
        shared = tuple(
            (certified[certify.baseline, seed], certified[method, seed])
            for seed in seeds
            if (method, seed) in certified
        )
        if method != certify.baseline and shared:
            plans.append((method, shared))
    reasons = {name: _timed_apart(variants) for name, variants in plans}
    entries = {
        name: {
            "status": "ok" if reasons[name] is None else "failed",
            "reason": reasons[name],
            "target": certify.target,
            "baseline": certify.baseline,
            "engines": [
                {"seed": base.seed, "baseline_sha256": base.sha256, "sha256": other.sha256} for base, other in variants
            ],
        }
        for name, variants in plans
    }
    return [plan for plan in plans if reasons[plan[0]] is None], entries


def _timed_apart(variants: Sequence[tuple[Engine, Engine]]) -> str | None:
    """Why the plans of a comparison may have other kernels for equal graphs; None where they have not."""
    for first, second in variants:
        caches = [_timing_cache(engine) for engine in (first, second)]
        if caches[0] != caches[1]:
            return (
                f"{first.name} and {second.name}: TensorRT chose their kernels by different measurements "
                f"(timing caches {' and '.join(str(cache)[:16] for cache in caches)}); compile both again"
            )
    return None


def _timing_cache(engine: Engine) -> object:
    """SHA-256 of the timing cache that a TensorRT plan was built with; None for other engines."""
    manifest = engine.manifest()
    if manifest.kind != "tensorrt":
        return None
    return PlanDetails.of(manifest, engine.path).extra.get("timing_cache_sha256")


def _compare(
    plans: Sequence[tuple[str, tuple[tuple[Engine, Engine], ...]]],
    images: Sequence[UInt8],
    config: BenchmarkConfig,
    profile: ProfileConfig,
    certify: CertifyConfig,
    generator: np.random.Generator,
    clock: Clock,
    progress: Progress | None,
) -> dict[str, list[PairSamples]]:
    first = plans[0][1][0][0]
    with first.open() as session:
        least, _ = session.batch_range
    batches = input_batches(first.manifest(), images, input_size=config.input_size, batch_size=least)
    confidence = confidence_per_look(len(profile.looks))

    def decided(measured: Mapping[str, Sequence[PairSamples]]) -> bool:
        ratios = [
            median_ratio(
                samples,
                resamples=certify.resamples,
                generator=np.random.default_rng(certify.seed),
                confidence=confidence,
            )
            for samples in measured.values()
        ]
        return all(equivalence(ratio, certify.margin) != "inconclusive" for ratio in ratios)

    return measure_comparisons(
        [
            SessionComparison(name, tuple((base.open, other.open) for base, other in variants))
            for name, variants in plans
        ],
        batches,
        PairPlan(profile.looks, profile.pair_seconds, profile.min_blocks, profile.warm_up_seconds),
        decided=decided,
        generator=generator,
        clock=clock,
        progress=None if progress is None else lambda done, of: progress("session pairs", done, of),
    )


def _refusal(tests: Sequence[StopwatchCheck]) -> str:
    worst = max(tests, key=lambda test: abs(test.deviation))
    return (
        f"the stopwatch is not to be trusted: it measured {worst.measured_ms:.3f} ms for an operation of "
        f"{worst.expected_ms:g} ms ({worst.deviation:+.1%}, allowed {worst.tolerance:.0%}); is the machine overloaded?"
    )


def _clock_description() -> dict[str, Any]:
    info = time.get_clock_info("perf_counter")
    return {"name": info.implementation, "resolution_ns": round(info.resolution * 1e9, 3), "monotonic": info.monotonic}


def representative_images(read: Callable[[int], UInt8], count: int, wanted: int) -> list[UInt8]:
    """`wanted` images spread evenly over a split of `count`.

    Raises:
        UserError: the split is empty.
    """
    if count == 0:
        raise UserError("benchmark: expected at least one validation image, got none")
    wanted = min(wanted, count)
    return [read(round(place * (count - 1) / max(wanted - 1, 1))) for place in range(wanted)]
