"""`python -m benchmarks.training [--json]`: seconds of a training step on the CPU, by precision, in one run."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from pipeline.compute.devices import keep_large_depthwise_in_float32, use_threads
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from serving.contract.errors import run_command

VARIANTS = ("fp32", "bf16", "bf16, large depthwise in fp32")


def step_seconds(segmentor: Segmentor, size: tuple[int, int], batch_size: int, dtype: torch.dtype | None) -> float:
    """Wall time of one forward and backward of the cross entropy."""
    height, width = size
    images = torch.randn(batch_size, 3, height, width).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, segmentor.num_classes, (batch_size, height, width))
    started = time.perf_counter()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = segmentor(images)
    logits = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    F.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def measure(size: tuple[int, int], batch_size: int, threads: int, rounds: int) -> dict[str, float]:
    """Median seconds per step of every variant, the rounds interleaved."""
    use_threads(threads)
    plain, mixed = (build_segmentor(ModelConfig(pretrained=False), 11, seed=0) for _ in range(2))
    for network in (plain, mixed):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_large_depthwise_in_float32(mixed)
    variants: dict[str, tuple[nn.Module, torch.dtype | None]] = dict(
        zip(VARIANTS, ((plain, None), (plain, torch.bfloat16), (mixed, torch.bfloat16)), strict=True)
    )
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, (segmentor, dtype) in variants.items():
            assert isinstance(segmentor, Segmentor)
            seconds[name].append(step_seconds(segmentor, size, batch_size, dtype))
    return {name: statistics.median(taken[1:]) for name, taken in seconds.items()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds = measure(tuple(arguments.size), arguments.batch_size, arguments.threads, arguments.rounds)
    if arguments.json:
        sys.stdout.write(json.dumps({"threads": arguments.threads, "seconds": seconds}, indent=2) + "\n")
    else:
        for name, value in seconds.items():
            sys.stdout.write(f"{name:32} {value:7.3f} s  {seconds['fp32'] / value:5.2f}x fp32\n")
    return 0


if __name__ == "__main__":
    run_command(main)
