"""The floor: an ONNX file with ONNX Runtime alone, as many sessions of one thread as there are, no files.

`run MODEL_FOLDER SOURCE TARGET`; the folders of images are not read. In our environment.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime
from protocol import HEIGHT, WIDTH, spoken

SECONDS = 6.0


def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Images per second of an image that is in memory already."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    threads = int(os.environ["OMP_NUM_THREADS"])
    file = str(folder / "model.onnx")
    sessions = [onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for _ in range(threads)]
    (wanted,) = sessions[0].get_inputs()
    pixels = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    image = pixels if wanted.type == "tensor(uint8)" else pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    for session in sessions:
        session.run(None, {wanted.name: image})
    done = itertools.count()
    start = time.perf_counter()

    def work(session: onnxruntime.InferenceSession) -> None:
        while time.perf_counter() - start < SECONDS:
            session.run(None, {wanted.name: image})
            next(done)

    workers = [threading.Thread(target=work, args=(session,)) for session in sessions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    images = next(done)
    return {"images": images, "images_per_second": images / (time.perf_counter() - start)}


if __name__ == "__main__":
    spoken({"run": run}, sys.argv[1:])
