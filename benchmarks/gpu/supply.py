"""How many training images a second the machine's cores supply, with 8 and 14 workers, to the device that trains."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.data import FORMATS, open_split, write_pictures
from pipeline.data.reading.batches import TrainingBatches
from pipeline.data.reading.config import AugmentConfig
from pipeline.training.performance.feeding import feed

BATCH = 8


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Crops of 512x1024 from scenes of 1024x2048, from files and from the cache of decoded images.

    Returns:
        Images per second as a training is fed: on CUDA pinned and copied on a side stream. The last batch has arrived
        when the clock stops.
    """
    target = torch.device(device)
    torch.set_num_threads(1)
    size, crop = ((64, 96), (32, 64)) if toy else ((1024, 2048), (512, 1024))
    pictures, iterations = (4, 4) if toy else (16, 24)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="contrail-gpu-supply-") as folder:
        for kind in FORMATS:
            write_pictures(Path(folder) / kind, pictures, size, kind)
            split = open_split(Path(folder) / kind, 64)
            for workers in (1, 2) if toy else (8, 14):
                for cached in (False, True):
                    cache = 4 * size[0] * size[1] * len(split) if cached else 0
                    config = AugmentConfig(crop=crop, cache_decoded_bytes=cache)
                    made = TrainingBatches(
                        split, config, batch_size=BATCH, iterations=2 * iterations, seed=0, workers=workers
                    )
                    batches = iter(feed(made, target))
                    for _ in range(iterations):  # workers start, and the cache fills
                        next(batches)
                    started = time.perf_counter()
                    count = sum(len(images) for images, _ in batches)
                    if target.type == "cuda":
                        torch.cuda.synchronize(target)
                    name = f"{kind}, {workers} workers{', cached' if cached else ''}"
                    found[name] = count / (time.perf_counter() - started)
    return {"images_per_second": found}
