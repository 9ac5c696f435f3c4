"""The servers that are measured: ours, and others around the same engine, each with as many workers of one thread.

LitServe (https://github.com/Lightning-AI/LitServe) and BentoML (https://github.com/bentoml/BentoML) run in an
environment of their own, so that nothing of them is among our requirements: `make rivals` (requirements.txt here).
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
import json
import os
from typing import Annotated

import litserve
import numpy
import onnxruntime
from fastapi import Depends, Request, Response

engine, port, workers, height, width = json.loads(os.environ["RIVAL"])


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

# Likewise: a file as the body is the cheapest way in (JSON and forms cost more, and pickles are refused from outside).
BENTOML = """
import json
import os
import sys
from pathlib import Path

import bentoml
import numpy
import onnxruntime

engine, port, workers, height, width = json.loads(os.environ["RIVAL"])


@bentoml.service(workers=workers, threads=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Rival:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(engine, options, providers=["CPUExecutionProvider"])

    @bentoml.api(route="/predict")
    def predict(self, image: Path, /) -> bytes:
        pixels = numpy.fromfile(image, numpy.uint8).reshape(1, height, width, 3)
        return self.session.run(["mask"], {"image": pixels})[0].tobytes()


if __name__ == "__main__":
    command = [sys.executable, "-m", "bentoml", "serve", "rival:Rival", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, command)
"""

RIVALS = {"litserve": LITSERVE, "bentoml": BENTOML}


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
def rival(
    name: str, python: Path, engine: Path, workers: int, image: np.ndarray
) -> Iterator[tuple[str, int, psutil.Process]]:
    """Another server around an engine: host, port and process (its workers are children of that).

    Args:
        name: one of `RIVALS`.
        python: of the environment of `make rivals`.
        engine: an ONNX file that takes `image` and gives `mask`.
        workers: processes, each with a session of one thread.
        image: `[H,W,3]` uint8, of the one size that it takes; with it the server is found ready.

    Raises:
        UserError: it did not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rival.py").write_text(RIVALS[name])
        words = [str(python.absolute()), "rival.py"]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": folder}
        environment |= {"RIVAL": json.dumps([str(engine.resolve()), port, workers, *image.shape[:2]])}
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
                        raise UserError(f"{python}: {name} did not start: {said.read_text()[-1000:]}")
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
