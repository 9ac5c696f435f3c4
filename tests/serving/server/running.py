"""The real server as a process of its own, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """Of one request."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class RunningServer:
    """A server that listens.

    Attributes:
        process: of it.
        url: without a slash at its end.
        log: what it has said so far, one entry per line.
        text: lines that were no JSON.
    """

    process: subprocess.Popen[str]
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def get(self, path: str, **headers: str) -> Answer:
        """GET a path."""
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: bytes, **headers: str) -> Answer:
        """POST a body."""
        return self.ask("POST", path, body, headers)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """One request; `_` in a header's name is `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def metrics(self) -> dict[str, float]:
        """What `/metrics` has, by name and labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in samples}

    def wait_for(self, condition: Callable[[Callable[[str], float]], bool]) -> None:
        """Wait until a condition holds; it gets a function from `NAME` to `contrail_NAME{engine="onnx_fp32"}`."""
        until = time.monotonic() + 120
        while True:
            samples = self.metrics()
            if condition(lambda name, samples=samples: samples.get(f'contrail_{name}{{engine="onnx_fp32"}}', 0.0)):  # type: ignore[misc]
                return
            assert time.monotonic() < until, samples

    def stop(self) -> int:
        """Stop it as a service manager does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def running(*arguments: object, **environment: str) -> Iterator[RunningServer]:
    """Start a server on a free port, wait until it is ready, and end it behind the block.

    Raises:
        AssertionError: it ended before it was ready; with what it said.
    """
    command = [sys.executable, "-m", "serving.server", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    server = RunningServer(process)
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                server.text.append(line)
                continue
            server.log.append(entry)
            if entry["message"] == "ready":
                server.url = entry["url"].rstrip("/")
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        ready.wait(120)
        assert server.url, "".join(server.text)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        reader.join(60)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stderr.close()
