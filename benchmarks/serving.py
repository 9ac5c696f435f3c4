"""What `serving.infer` costs beside the least that could do its work: throughput, cold start, memory.

**Throughput**: a folder of JPEGs to mask PNGs on two threads, against a bare loop of two threads around the same engine
(each thread: decode, an ONNX Runtime session of one thread, encode; no program around it). Start is taken out of both:
each says itself how fast it was from its first image on. They take turns, and what is compared is the median of the
pairs' ratios with its interval. **Cold start**: `benchmarks.serving_cold`, and the program `contrail` beside
`python -m`. **Memory**: peak resident memory with few and with many images. **Self-test** (`--selftests N`, alone): how
often it calls a sound engine wrong, over the runtimes of the CPU, and how long it takes. `--parts` measures some alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import comb
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving_cold import find_engine, measure, run_once
from serving.contract.command import require_at_least
from serving.contract.errors import UserError, did_you_mean, run_command
from serving.engines.predictor import Predictor
from serving.golden.selftest import self_test

HEIGHT, WIDTH = 360, 480  # CamVid's, in the layout of the SegNet tutorial
PARTS = ("fp32", "overlay", "int8", "memory", "cold", "program")
LIMITS = {"fp32": 0.96, "int8": 0.95, "overlay": 0.9}
COLD_LIMIT, COLD_MEMORY_LIMIT, PROGRAM_LIMIT_MS, MEMORY_LIMIT = 1.15, 1.1, 30.0, 1.05

_COLD = {"seconds": "seconds", "resident": "resident_mb"}

PICTURES = """
import sys
import numpy
from PIL import Image
folder, count, height, width = sys.argv[1], *map(int, sys.argv[2:])
generator = numpy.random.default_rng(0)
for index in range(count):
    coarse = Image.fromarray(generator.integers(0, 256, (height // 24, width // 24, 3), dtype=numpy.uint8))
    image = numpy.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(numpy.int16)
    noisy = numpy.clip(image + generator.integers(-12, 13, image.shape), 0, 255).astype(numpy.uint8)
    Image.fromarray(noisy).save(f"{folder}/{index:05}.jpg", quality=90)
"""

# The last line says how many images a second.
BARE = """
import itertools, os, sys, threading, time
import numpy
import onnxruntime
from PIL import Image
engine, source, target, threads, overlay = *sys.argv[1:4], int(sys.argv[4]), sys.argv[5] == "overlay"
paths = sorted(os.scandir(source), key=lambda entry: entry.name)
palette = numpy.random.default_rng(0).integers(0, 256, (256, 3), dtype=numpy.uint8)
colors = palette.tobytes()
turn = itertools.count()

def work(session):
    while (index := next(turn)) < len(paths):
        with Image.open(paths[index].path) as opened:
            image = numpy.asarray(opened.convert("RGB"))
        height, width = image.shape[:2]
        padded = numpy.pad(image, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="edge")
        mask = session.run(None, {"image": padded[None]})[0][0, :height, :width]
        name = f"{target}/{paths[index].name[:-4]}"
        shown = Image.fromarray(mask)
        shown.putpalette(colors)
        shown.save(name + ".png", compress_level=3)
        if overlay:
            blended = (image * numpy.uint16(128) + palette[mask] * numpy.uint16(128) + 128) >> 8
            Image.fromarray(blended.astype(numpy.uint8)).save(name + ".overlay.jpg", quality=90)

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
sessions = [onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"]) for _ in range(threads)]
workers = [threading.Thread(target=work, args=(session,)) for session in sessions]
start = time.perf_counter()
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(len(paths) / (time.perf_counter() - start), "images per second")
"""


@dataclass(frozen=True)
class Ratio:
    """Throughput of `infer` as a share of the bare loop's.

    Attributes:
        median: over the pairs.
        low, high: interval of the median, from the order of the pairs' ratios alone.
        confidence: of the interval.
        infer, bare: images a second in every run.
    """

    median: float
    low: float
    high: float
    confidence: float
    infer: tuple[float, ...]
    bare: tuple[float, ...]


def ratio_of(infer: Sequence[float], bare: Sequence[float]) -> Ratio:
    """The median of the pairs' ratios and the narrowest interval of at least 95 % around it, as far as there are pairs.

    Example:
        >>> found = ratio_of([9, 8, 10, 9, 9, 9, 9, 9, 9], [10] * 9)
        >>> found.median, found.low, found.high, round(found.confidence, 3)
        (0.9, 0.9, 0.9, 0.961)
    """
    ratios = sorted(each / other for each, other in zip(infer, bare, strict=True))
    count, cut = len(ratios), 0
    # P(the median lies outside of the k-th smallest and largest) is twice a binomial tail.
    tails = [2 * sum(comb(count, i) for i in range(k + 1)) / 2**count for k in range(count // 2)]
    while cut + 1 < len(tails) and tails[cut + 1] <= 0.05:
        cut += 1
    confidence = 1 - tails[cut] if tails else 0.0
    return Ratio(median(ratios), ratios[cut], ratios[-1 - cut], confidence, tuple(infer), tuple(bare))


def throughput(engine: Path, pictures: Path, *, threads: int, pairs: int, overlay: bool) -> Ratio:
    """Let `infer` and the bare loop take turns.

    Args:
        engine: an ONNX file with its manifest beside it.
        pictures: a folder of JPEGs.
        threads: of each.
        pairs: of runs, after one of each that is not counted.
        overlay: whether to draw overlays as well.
    """
    rates: dict[str, list[float]] = {"infer": [], "bare": []}
    for turn in range(pairs + 1):
        for name in ("infer", "bare") if turn % 2 else ("bare", "infer"):
            with tempfile.TemporaryDirectory() as output:
                if name == "infer":
                    command = [sys.executable, "-m", "serving.infer", str(pictures), "--engine", str(engine)]
                    command += ["--output", output, "--threads", str(threads), *(["--overlay"] if overlay else [])]
                else:
                    command = [sys.executable, "-c", BARE, str(engine), str(pictures), output, str(threads)]
                    command.append("overlay" if overlay else "mask")
                printed = run_once(command).output
                found = re.search(r"([\d.]+) images per second", printed)
                if found is None:
                    raise UserError(f"{name} did not say how fast it was: {printed[-300:]}")
                if turn > 0:
                    rates[name].append(float(found[1]))
    return ratio_of(rates["infer"], rates["bare"])


def memory(engine: Path, pictures: Path, *, few: int, many: int, threads: int) -> dict[str, float]:
    """Peak resident memory in MB with few and with many images, every image of the folder named as often as needed."""
    names = sorted(str(path) for path in pictures.iterdir())
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            linked = Path(folder, f"linked-{count}")
            linked.mkdir()
            for index in range(count):
                (linked / f"{index:06}.jpg").symlink_to(names[index % len(names)])
            command = [sys.executable, "-m", "serving.infer", str(linked), "--engine", str(engine)]
            command += ["--output", str(Path(folder, f"out-{count}")), "--threads", str(threads)]
            peaks[f"with_{count}_mb"] = run_once(command).resident_mb
            shutil.rmtree(linked)
    return {**peaks, "ratio": peaks[f"with_{many}_mb"] / peaks[f"with_{few}_mb"]}


def program_start(runs: int) -> dict[str, float] | None:
    """Milliseconds that `contrail infer` takes over `python -m serving.infer`; None where there is no such program."""
    program = Path(sys.executable).with_name("contrail")
    if not program.exists():
        return None
    commands = {"contrail": [str(program), "infer"], "module": [sys.executable, "-m", "serving.infer"]}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            seconds = run_once([*command, "--help"]).seconds
            if run > 0:
                taken[name].append(seconds)
    pairs = zip(taken["contrail"], taken["module"], strict=True)
    medians = {f"{name}_ms": 1e3 * median(values) for name, values in taken.items()}
    return {**medians, "over_ms": 1e3 * median(program - module for program, module in pairs)}


def report(
    engine: Path,
    int8: Path | None,
    *,
    images: int,
    pairs: int,
    threads: int,
    many: int,
    cold_runs: int,
    parts: Sequence[str] = PARTS,
) -> dict[str, Any]:
    """What is measured, part by part, each with what it was measured with; see the module.

    Args:
        engine: an fp32 ONNX file.
        int8: an INT8 one; without it there is no part `int8`.
        images: of the throughput.
        pairs: of runs.
        threads: of the throughput and the memory.
        many: images for the question of memory.
        cold_runs: starts of each program.
        parts: of `PARTS`, to be measured.
    """
    found: dict[str, Any] = {"threads": threads, "images": images, "pairs": pairs, "size": [HEIGHT, WIDTH]}
    found |= {"cpus": os.cpu_count(), "load_1min": os.getloadavg()[0], "engine": str(engine)}
    cases = {"fp32": engine, "overlay": engine} | ({"int8": int8} if int8 is not None else {})
    within: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder)
        if {"memory", *cases} & set(parts):
            run_once([sys.executable, "-c", PICTURES, folder, str(images), str(HEIGHT), str(WIDTH)])
        for name, path in cases.items():
            if name in parts:
                with _measured(found, name, engine=str(path), images=images, pairs=pairs, threads=threads) as into:
                    ratio = throughput(path, pictures, threads=threads, pairs=pairs, overlay=name == "overlay")
                    into |= vars(ratio) | {"limit": LIMITS[name]}
                within[name] = ratio.median >= LIMITS[name]
        if "memory" in parts:
            few = min(100, many)
            with _measured(found, "memory", engine=str(engine), few=few, many=many, threads=threads) as into:
                into |= memory(engine, pictures, few=few, many=many, threads=threads)
            within["memory"] = into["ratio"] <= MEMORY_LIMIT
    if "cold" in parts:
        with _measured(found, "cold", engine=str(engine), runs=cold_runs, size=[384, 480]) as into:
            cold = measure(engine, height=384, width=480, runs=cold_runs)
            into |= {f"{key}_ratio": _share(cold, part) for key, part in _COLD.items()}
            into |= {"infer": cold["infer"], "floor": cold["floor"]}
        within["cold"] = into["seconds_ratio"] <= COLD_LIMIT and into["resident_ratio"] <= COLD_MEMORY_LIMIT
    if "program" in parts:
        started = program_start(cold_runs)
        found["program"] = None if started is None else started | {"measured_with": {"runs": cold_runs}}
        within["program"] = started is None or started["over_ms"] <= PROGRAM_LIMIT_MS
    found["within_limits"] = all(within.values())
    return found


@contextmanager
def _measured(found: dict[str, Any], name: str, **settings: object) -> Iterator[dict[str, Any]]:
    """The entry of a part, and with what it was measured: settings, load of the machine before, seconds it took."""
    before, start = os.getloadavg()[0], time.perf_counter()
    into: dict[str, Any] = {}
    found[name] = into
    yield into
    took = round(time.perf_counter() - start, 1)
    into["measured_with"] = settings | {"load_1min": before, "cpus": os.cpu_count(), "took_s": took}


def false_alarms(engines: Sequence[Path], *, runs: int, threads: int) -> dict[str, Any]:
    """Test sound engines in turn, each in every runtime of the CPU; each run opens its engine anew, as a device does.

    Returns:
        `runs`, `alarms` (what was found wrong in every run that did not pass), and the median `seconds` by target.
    """
    targets = itertools.cycle((engine, runtime) for engine in engines for runtime in ("onnxruntime", "openvino"))
    alarms: list[str] = []
    seconds: dict[str, list[float]] = {}
    for engine, runtime in itertools.islice(targets, runs):
        with Predictor(engine, runtime=runtime, options={"threads": threads}) as predictor:
            start = time.perf_counter()
            result = self_test(predictor)
        seconds.setdefault(f"{engine} {runtime}", []).append(time.perf_counter() - start)
        alarms += [f"{engine} {runtime}: {'; '.join(result.problems)}"] if not result.passed else []
    found = {"runs": runs, "alarms": alarms, "seconds": {name: median(values) for name, values in seconds.items()}}
    return found | {"threads": threads, "cpus": os.cpu_count(), "load_1min": os.getloadavg()[0]}


def _share(cold: dict[str, Any], part: str) -> float:
    return float(cold["infer"][part] / cold["floor"][part])


def main() -> int:
    """The command; returns its exit status: 1 with `--check` when a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument(
        "--engine", type=Path, help="fp32 ONNX file with its manifest (default: the first in artifacts/)"
    )
    parser.add_argument("--int8", type=Path, help="an INT8 engine, to be measured as well")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--many", type=int, default=5000, help="images for the question of memory (default 5000)")
    parser.add_argument("--cold-runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit 1 when a limit is passed")
    parser.add_argument("--selftests", type=int, metavar="N", help="only count false alarms in so many self-tests")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, with commas (default: %(default)s)")
    arguments = parser.parse_args()
    require_at_least(arguments, dict.fromkeys(("images", "pairs", "threads", "many", "cold_runs", "selftests"), 1))
    parts = [name.strip() for name in arguments.parts.split(",")]
    for name in parts:
        if name not in PARTS:
            raise UserError(f"--parts: no part {name!r}{did_you_mean(name, PARTS)}")
    if parts == ["int8"] and arguments.int8 is None:
        raise UserError("--parts int8: expected an engine as well: --int8 ENGINE")
    if arguments.selftests is not None:
        engines = [each for each in (arguments.engine or find_engine(), arguments.int8) if each is not None]
        counted = false_alarms(engines, runs=arguments.selftests, threads=arguments.threads)
        sys.stdout.write(json.dumps(counted, indent=2) + "\n")
        return 1 if counted["alarms"] else 0
    found = report(
        arguments.engine or find_engine(),
        arguments.int8,
        images=arguments.images,
        pairs=arguments.pairs,
        threads=arguments.threads,
        many=arguments.many,
        cold_runs=arguments.cold_runs,
        parts=parts,
    )
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for name in LIMITS:
            if name in found:
                row = found[name]
                sys.stdout.write(
                    f"{name}: {row['median']:.3f} of the bare loop ({row['low']:.3f} to {row['high']:.3f}; asked for "
                    f"{row['limit']})\n"
                )
        if "cold" in found:
            shares = found["cold"]["seconds_ratio"], found["cold"]["resident_ratio"]
            sys.stdout.write(f"cold start: {shares[0]:.2f} of the floor, memory {shares[1]:.2f}\n")
        if "memory" in found:
            sys.stdout.write(f"memory with many images: {found['memory']['ratio']:.3f}\n")
        if found.get("program") is not None:
            sys.stdout.write(f"contrail: {found['program']['over_ms']:.0f} ms over python -m\n")
    return 1 if arguments.check and not found["within_limits"] else 0


if __name__ == "__main__":
    run_command(main)
