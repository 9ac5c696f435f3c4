"""What the server costs: its throughput beside the bare engine's, latencies, and thousands of requests, some hostile.

`python -m benchmarks.server ENGINE --json`. Server and clients share the CPUs, as the bare engine does. Ratios are
of rounds that take turns in one run; where the environment of `make rivals` is, LitServe and BentoML around the same
file take their turns as well (`benchmarks.server.servers`). `--requests 0` and `--rounds 0` leave one half out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from benchmarks.server.clients import CLIENTS, Wire, at_rate, bare, endure, saturate, tensor_request
from benchmarks.server.servers import RIVALS, rival, served
from serving.contract.command import require_at_least
from serving.contract.errors import UserError, run_command
from serving.engines.predictor import Predictor

BYTES = "application/octet-stream"
HEIGHT, WIDTH = 360, 480  # of CamVid's frames at half size
# A server: its address, what is asked of it, its process.
Side = tuple[tuple[str, int], Sequence[Wire], psutil.Process]
RIVAL_PYTHON = Path(".rivals/bin/python")


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__.partition("\n")[0])
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="model.onnx, manifest.json beside it")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one round (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="of bare engine and servers in turn (default 5; 0: none)")
    parser.add_argument("--requests", type=int, default=10_000, help="of the endurance run (default 10000; 0: none)")
    parser.add_argument(
        "--rivals", type=Path, metavar="PYTHON", help=f"of the environment of `make rivals` (default: {RIVAL_PYTHON})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    require_at_least(arguments, {"rounds": 0, "requests": 0})
    if not arguments.seconds > 0:
        raise UserError(f"--seconds: expected more than 0, got {arguments.seconds}")
    if arguments.rivals is not None and not arguments.rivals.exists():
        raise UserError(f"--rivals {arguments.rivals}: no such program; `make rivals` makes {RIVAL_PYTHON}")
    rivals = arguments.rivals or RIVAL_PYTHON
    threads = len(os.sched_getaffinity(0))
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    padded = [np.pad(image, ((0, -HEIGHT % 32), (0, -WIDTH % 32), (0, 0)), mode="edge") for image in images]
    with Predictor(arguments.engine, options={"threads": 1}) as predictor:
        name = predictor.manifest.name
        wires = [tensor_request(name, image, predictor.predict(image)) for image in images]
        # Thousands of them: a sixteenth of the pixels.
        small = [tensor_request(name, image[::4, ::4], predictor.predict(image[::4, ::4])) for image in images]
        raw = [
            Wire("/predict", image.tobytes(), {"Content-Type": BYTES}, predictor.predict(image).tobytes())
            for image in padded
        ]
    found: dict[str, object] = {"threads": threads, "clients": CLIENTS, "engine": str(arguments.engine)}
    found |= {"seconds": arguments.seconds, "rounds": arguments.rounds, "size": [HEIGHT, WIDTH]}
    found |= {"load_1min": round(os.getloadavg()[0], 2)}
    options = ("--max-body-mib", "16", "--receive-timeout", "2")
    with contextlib.ExitStack() as servers:
        host, port, process = servers.enter_context(served(arguments.engine, *options))
        address = (host, port)
        sides: dict[str, Side] = {"server": (address, wires, process)}
        if arguments.rounds and rivals.exists():
            for rival_name in RIVALS:
                there = servers.enter_context(rival(rival_name, rivals, arguments.engine, threads, padded[0]))
                sides[rival_name] = (there[:2], raw, there[2])
        elif arguments.rounds:
            found["rivals"] = f"skipped: no {rivals}; `make rivals` makes it"
        if arguments.rounds:
            found |= at_saturation(sides, arguments, padded, threads)
        if arguments.requests:
            found["endurance"] = endure(address, name, small, process, arguments.requests)
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if arguments.json else _table(found))
    return 0


def at_saturation(
    sides: dict[str, Side], arguments: argparse.Namespace, images: Sequence[np.ndarray], threads: int
) -> dict[str, object]:
    """Throughput of every side beside the bare engine's, round by round; then latencies of ours at half of its rate."""
    for at, asked, _ in sides.values():
        saturate(at, asked, 2, CLIENTS)
    bare(arguments.engine, images, 1, threads)
    rounds = [
        {"bare": bare(arguments.engine, images, arguments.seconds, threads)}
        | {side: loaded(*each, arguments.seconds) for side, each in sides.items()}
        for _ in range(arguments.rounds)
    ]
    rate = statistics.median(each["server"][0] for each in rounds)
    address, wires, _ = sides["server"]
    took = at_rate(address, wires, 3 * arguments.seconds, rate / 2)
    quantiles = statistics.quantiles(took, n=100)
    return compared(rounds) | {
        "half_load_p50_ms": round(1e3 * quantiles[49], 1),
        "half_load_p99_ms": round(1e3 * quantiles[98], 1),
        "half_load_p99_over_p50": round(quantiles[98] / quantiles[49], 2),
    }


def loaded(
    address: tuple[str, int], wires: Sequence[Wire], process: psutil.Process, seconds: float
) -> tuple[float, float]:
    """A server at saturation: requests per second, and CPU ms of each in the server and its processes."""
    before = _cpu_s(process)
    rate, took = saturate(address, wires, seconds, CLIENTS)
    return rate, 1e3 * (_cpu_s(process) - before) / len(took)


def compared(rounds: Sequence[dict[str, tuple[float, float]]]) -> dict[str, object]:
    """Medians over the rounds, and each server beside the bare engine of its own round.

    Example:
        >>> found = compared([{"bare": (40.0, 50.0), "server": (38.0, 52.0), "litserve": (36.0, 55.0)}])
        >>> found["server_over_bare"], found["server_overhead_ms"], found["overhead_over_litserve"]
        (0.95, 2.0, 0.4)
    """
    found: dict[str, object] = {}
    overheads = {}
    for side in rounds[0]:
        found[f"{side}_per_second"] = round(statistics.median(each[side][0] for each in rounds), 2)
        found[f"{side}_cpu_ms"] = round(statistics.median(each[side][1] for each in rounds), 2)
        if side == "bare":
            continue
        ratios = [each[side][0] / each["bare"][0] for each in rounds]
        overheads[side] = statistics.median(each[side][1] - each["bare"][1] for each in rounds)
        found[f"{side}_over_bare"] = round(statistics.median(ratios), 4)
        found[f"{side}_ratios"] = [round(each, 4) for each in ratios]
        found[f"{side}_overhead_ms"] = round(overheads[side], 2)
    for side in (each for each in overheads if each != "server"):
        ratios = [each["server"][0] / each[side][0] for each in rounds]
        found[f"server_over_{side}"] = round(statistics.median(ratios), 4)
        found[f"overhead_over_{side}"] = round(overheads["server"] / overheads[side], 3)
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _table(found: dict[str, object]) -> str:
    return "".join(f"{key:28} {value}\n" for key, value in found.items())


if __name__ == "__main__":
    run_command(main)
