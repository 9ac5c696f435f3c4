"""The servers that are measured: ours, and LitServe (https://github.com/Lightning-AI/LitServe) around the same engine.

LitServe runs in an environment of its own, so that nothing of it is among our requirements:

    python -m venv rival && rival/bin/pip install litserve==0.2.19 onnxruntime==1.31.1 numpy
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from serving.contract.errors import UserError

# As its documentation writes an API, but for the tensor: it comes as the raw body, which is LitServe's cheapest way.
LITSERVE = """
import sys
from typing import Annotated

import litserve
import numpy
import onnxruntime
from fastapi import Depends, Request, Response

engine, port, workers, height, width = sys.argv[1], *map(int, sys.argv[2:])


async def raw(request: Request) -> bytes:
    return await request.body()


class LitServeEngine(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Depends(raw)]):
        return numpy.frombuffer(request, numpy.uint8).reshape(1, height, width, 3)

    def predict(self, image):
        return self.session.run(["mask"], {"image": image})[0]

    def encode_response(self, mask):
        return Response(mask.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(LitServeEngine(), accelerator="cpu", workers_per_device=workers, timeout=60)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)
"""


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


@contextlib.contextmanager
def litserve(python: Path, engine: Path, workers: int, image: np.ndarray) -> Iterator[tuple[str, int, psutil.Process]]:
    """LitServe around an engine: host, port and process (its workers are children of that).

    Args:
        python: of an environment that has litserve, onnxruntime and numpy.
        engine: an ONNX file that takes `image` and gives `mask`.
        workers: processes, each with a session of one thread.
        image: `[H,W,3]` uint8, of the one size that it takes; with it the server is found ready.

    Raises:
        UserError: it did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "rival.py")
        script.write_text(LITSERVE)
        words = [str(python), str(script), str(engine.resolve()), *map(str, (port, workers, *image.shape[:2]))]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        said = Path(folder, "said")
        with (
            said.open("w") as log,
            subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=environment) as process,
        ):
            whole = psutil.Process(process.pid)
            try:
                until = time.monotonic() + 120
                while not _answers(port, image):
                    if process.poll() is not None or time.monotonic() > until:
                        raise UserError(f"{python}: LitServe did not start: {said.read_text()[-1000:]}")
                    time.sleep(0.2)
                yield "127.0.0.1", port, whole
            finally:
                children = whole.children(recursive=True) if process.poll() is None else []
                for each in (*children, process):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()


def _answers(port: int, image: np.ndarray) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("POST", "/predict", image.tobytes(), {"Content-Type": "application/octet-stream"})
            return connection.getresponse().status == 200
        except OSError:
            return False
