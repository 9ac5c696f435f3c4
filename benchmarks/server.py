"""What the server costs: its throughput beside the bare engine's, latencies, and thousands of requests, some hostile.

`python -m benchmarks.server ENGINE --json`. Server and clients share the CPUs, as the bare engine does. Ratios are
of rounds that take turns in one run.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from serving.contract.errors import UserError, run_command
from serving.engines.predictor import Predictor

CLIENTS = 16
HEIGHT, WIDTH = 360, 480  # of CamVid's frames at half size


@dataclass(frozen=True)
class Wire:
    """One request and its answer, as bytes.

    Attributes:
        path: of the route.
        body: of the request.
        headers: of the request.
        answer: the bytes at the end of the right answer.
    """

    path: str
    body: bytes
    headers: dict[str, str]
    answer: bytes


def tensor_request(name: str, image: np.ndarray, mask: np.ndarray) -> Wire:
    """An image as a binary tensor of the Open Inference Protocol, and its mask as the answer's."""
    described = {
        "inputs": [
            {
                "name": "image",
                "datatype": "UINT8",
                "shape": [1, *image.shape],
                "parameters": {"binary_data_size": image.nbytes},
            }
        ],
        "outputs": [{"name": "mask", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(described).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return Wire(f"/v2/models/{name}/infer", text + image.tobytes(), headers, mask.tobytes())


@contextlib.contextmanager
def served(engine: Path, *options: str) -> Iterator[tuple[str, int, psutil.Process]]:
    """The server as a process of its own: its host, port and process."""
    command = [sys.executable, "-m", "serving.server", str(engine), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            url = ""
            for line in process.stderr:
                entry = json.loads(line) if line.startswith("{") else {}
                if entry.get("message") == "ready":
                    url = entry["url"]
                    break
            if not url:
                raise UserError(f"{engine}: the server did not start")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
            yield host, int(port), psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def ask(connection: http.client.HTTPConnection, wire: Wire) -> float:
    """Seconds of one request. Raises AssertionError where the answer is not the right one."""
    start = time.perf_counter()
    connection.request("POST", wire.path, wire.body, wire.headers)
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - start
    assert answer.status == 200 and body.endswith(wire.answer), (answer.status, body[:200])
    return took


def saturate(
    address: tuple[str, int], wires: Sequence[Wire], seconds: float, clients: int
) -> tuple[float, list[float]]:
    """Requests per second of clients that ask again at once, and the seconds of every request."""

    def run(number: int) -> list[float]:
        connection = http.client.HTTPConnection(*address, timeout=60)
        took, turn, until = [], number, time.perf_counter() + seconds
        while time.perf_counter() < until:
            took.append(ask(connection, wires[turn % len(wires)]))
            turn += 1
        connection.close()
        return took

    return _together(run, clients)


def at_rate(address: tuple[str, int], wires: Sequence[Wire], seconds: float, rate: float) -> list[float]:
    """Seconds of requests that come at random (a Poisson process), whether or not those before are answered."""
    generator = random.Random(0)
    took: list[float] = []
    local = threading.local()

    def one(wire: Wire, due: float) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(*address, timeout=60)
        ask(local.connection, wire)
        took.append(time.perf_counter() - due)

    with ThreadPoolExecutor(64) as pool:
        waiting: list[Future[None]] = []
        due, end = time.perf_counter(), time.perf_counter() + seconds
        while due < end:
            time.sleep(max(due - time.perf_counter(), 0))
            waiting.append(pool.submit(one, wires[len(waiting) % len(wires)], due))
            due += generator.expovariate(rate)
        for each in waiting:
            each.result()
    return took


def bare(engine: Path, images: Sequence[np.ndarray], seconds: float, threads: int) -> float:
    """Images per second of a loop around ONNX Runtime: one session, and a thread of calls for each CPU."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(engine), settings, providers=["CPUExecutionProvider"])

    def run(number: int) -> list[float]:
        took, turn, until = [], number, time.perf_counter() + seconds
        while time.perf_counter() < until:
            start = time.perf_counter()
            session.run(None, {"image": images[turn % len(images)][None]})
            took.append(time.perf_counter() - start)
            turn += 1
        return took

    return _together(run, threads)[0]


def _together(run: Callable[[int], list[float]], count: int) -> tuple[float, list[float]]:
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        parts = list(pool.map(run, range(count)))
        spent = time.perf_counter() - start
    took = [each for part in parts for each in part]
    return len(took) / spent, took


def hostile(address: tuple[str, int], name: str, wire: Wire, number: int) -> tuple[str, bool, str]:
    """One malformed request: its kind, whether the answer is a 4xx with a reason, and the answer."""
    kinds = ("truncated", "shape", "json", "bomb", "slow", "gone")
    kind = kinds[number % len(kinds)]
    head, body = f"POST {wire.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n", wire.body
    lines = "".join(f"{key}: {value}\r\n" for key, value in wire.headers.items())
    with socket.create_connection(address, timeout=60) as connection:
        if kind == "truncated":
            connection.sendall(f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
            connection.shutdown(socket.SHUT_WR)
        elif kind == "shape":
            wrong = body.replace(b'"shape": [1,', b'"shape": [2,', 1)
            connection.sendall(
                f"{head}{lines}Connection: close\r\nContent-Length: {len(wrong)}\r\n\r\n".encode() + wrong
            )
        elif kind == "json":
            nested = b"[" * 50_000
            connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(nested)}\r\n\r\n".encode() + nested)
        elif kind == "bomb":
            packed = gzip.compress(bytes(100 * 2**20), 9)
            lines = f"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: {len(packed)}\r\n\r\n"
            connection.sendall(f"{head}{lines}".encode() + packed)
        elif kind == "slow":
            connection.sendall(f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
        else:
            connection.sendall(f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body[:1000])
            return kind, True, ""  # it is gone: there is nobody to answer
        answer = b""
        while more := connection.recv(65536):
            answer += more
    said = answer.decode("latin-1")
    return kind, said.startswith("HTTP/1.1 4") and '{"error":' in said, said[:300]


def endure(
    address: tuple[str, int], name: str, wires: Sequence[Wire], process: psutil.Process, count: int
) -> dict[str, object]:
    """Thousands of requests of which every twentieth is malformed; memory before and after."""
    wrong: list[str] = []

    def run(client: int) -> list[float]:
        connection = http.client.HTTPConnection(*address, timeout=60)
        took = []
        for number in range(client, count, CLIENTS):
            if number % 20 == 7:
                kind, answered, said = hostile(address, name, wires[0], number // 20)
                if not answered:
                    wrong.append(f"{kind}: {said}")
            else:
                took.append(ask(connection, wires[number % len(wires)]))
        connection.close()
        return took

    warm = count // 5
    total, count = count, warm
    _together(run, CLIENTS)
    before, count = process.memory_info().rss, total
    _, took = _together(run, CLIENTS)
    after = process.memory_info().rss
    return {
        "requests": total,
        "malformed": sum(number % 20 == 7 for number in range(total)),
        "not_answered_as_they_should": wrong,
        "right": len(took),
        "resident_bytes_before": before,
        "resident_bytes_after": after,
        "resident_ratio": round(after / before, 4),
    }


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__.partition("\n")[0])
    parser.add_argument("engine", type=Path, metavar="ENGINE", help="model.onnx, manifest.json beside it")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one round (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="of bare engine and server in turn (default 5)")
    parser.add_argument("--requests", type=int, default=10_000, help="of the endurance run (default 10000; 0: none)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)]
    padded = [np.pad(image, ((0, -HEIGHT % 32), (0, -WIDTH % 32), (0, 0)), mode="edge") for image in images]
    with Predictor(arguments.engine, options={"threads": 1}) as predictor:
        name = predictor.manifest.name
        wires = [tensor_request(name, image, predictor.predict(image)) for image in images]
    found: dict[str, object] = {"threads": threads, "clients": CLIENTS, "engine": str(arguments.engine)}
    options = ("--max-body-mib", "16", "--receive-timeout", "2")
    with served(arguments.engine, *options) as (host, port, process):
        address = (host, port)
        saturate(address, wires, 2, CLIENTS)
        bare(arguments.engine, padded, 1, threads)
        pairs = []
        for _ in range(arguments.rounds):
            alone = bare(arguments.engine, padded, arguments.seconds, threads)
            before = process.cpu_times()
            rate, took = saturate(address, wires, arguments.seconds, CLIENTS)
            after = process.cpu_times()
            spent = after.user + after.system - before.user - before.system
            pairs.append((alone, rate, 1e3 * spent / len(took)))
        rate = statistics.median(pair[1] for pair in pairs)
        took = at_rate(address, wires, 3 * arguments.seconds, rate / 2)
        quantiles = statistics.quantiles(took, n=100)
        found |= {
            "bare_per_second": round(statistics.median(pair[0] for pair in pairs), 2),
            "server_per_second": round(rate, 2),
            "ratio": round(statistics.median(pair[1] / pair[0] for pair in pairs), 4),
            "ratios": [round(pair[1] / pair[0], 4) for pair in pairs],
            "server_cpu_ms_per_request": round(statistics.median(pair[2] for pair in pairs), 2),
            "engine_cpu_ms": round(1e3 * threads / statistics.median(pair[0] for pair in pairs), 2),
            "half_load_p50_ms": round(1e3 * quantiles[49], 1),
            "half_load_p99_ms": round(1e3 * quantiles[98], 1),
            "half_load_p99_over_p50": round(quantiles[98] / quantiles[49], 2),
        }
        if arguments.requests:
            found["endurance"] = endure(address, name, wires, process, arguments.requests)
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if arguments.json else _table(found))
    return 0


def _table(found: dict[str, object]) -> str:
    return "".join(f"{key:28} {value}\n" for key, value in found.items())


if __name__ == "__main__":
    run_command(main)
