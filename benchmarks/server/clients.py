"""Clients: requests one after the other, at a rate, and malformed ones; and the bare engine in their place."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

CLIENTS = 16


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

    return together(run, clients)


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


def bare(engine: Path, images: Sequence[np.ndarray], seconds: float, threads: int) -> tuple[float, float]:
    """A loop around ONNX Runtime, one session and a thread of calls for each CPU: images per second, CPU ms of each."""
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

    before = time.process_time()
    rate, took = together(run, threads)
    return rate, 1e3 * (time.process_time() - before) / len(took)


def together(run: Callable[[int], list[float]], count: int) -> tuple[float, list[float]]:
    """Run something in several threads: how many of its results came per second, and all of them."""
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
        # A server that closes what it has not read to its end resets the connection: its answer came before, or never.
        with contextlib.suppress(ConnectionResetError):
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
    together(run, CLIENTS)
    before, count = process.memory_info().rss, total
    _, took = together(run, CLIENTS)
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
