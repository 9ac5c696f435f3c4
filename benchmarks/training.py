"""`python -m benchmarks.training [--json]`: training steps on the CPU by precision; what contrast and checkpoints cost.

What a contrast adds to the baseline's step, projection heads included, is counted in CPU time over whole steps that
take turns, of the default network and of HRNetV2-W18s, on generated streets of the same size.

A checkpoint of the default network with AdamW's state and the best weights is written, and read back into a trainee, as
a training does. The cost is that of one every 50 iterations over the time of 50 steps of the same batch and size, in
the fastest precision measured; the time to read is what a resume starts later than a fresh training.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.losses.contrast_step import BASELINE, NETWORKS, contrast_costs, street_batches
from pipeline.compute.devices import keep_large_depthwise_in_float32, use_threads
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.resuming.store import CheckpointStore
from pipeline.training.resuming.tensors import restore, state_tensors, state_values
from pipeline.training.state import TrainingState
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


def checkpoint_costs(rounds: int) -> dict[str, float]:
    """Median seconds to write and to read the state of the default network's training, and its size."""
    method = MethodConfig("pixel_contrast", PixelContrastConfig())
    term = build_loss_term(method, num_classes=11, ignore_index=255, training_images=160)
    segmentor = build_segmentor(ModelConfig(pretrained=False), 11, seed=0)
    trainee = attach_training_heads(segmentor, term, auxiliary=True, seed=0)
    trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = TrainingState(build_optimizer(trainee, OptimizerConfig()))
    for parameter in trainee.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    best = {name: value.clone() for name, value in trainee.state_dict().items()}
    written, read = [], []
    with tempfile.TemporaryDirectory(prefix="contrail-checkpoints-") as folder:
        with CheckpointStore(Path(folder), "0" * 64, keep=2, say=lambda text: None) as store:
            for iteration in range(1, rounds + 2):
                started = time.perf_counter()
                store.save(iteration, state_tensors(trainee, term, state, best), {**state_values(state), "curves": {}})
                written.append(time.perf_counter() - started)
                started = time.perf_counter()
                found = store.latest()
                assert found is not None
                restore(found, Path(folder), trainee=trainee, term=term, state=state)
                read.append(time.perf_counter() - started)
        size = max(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    return {
        "write_seconds": statistics.median(written[1:]),
        "read_seconds": statistics.median(read[1:]),
        "bytes": size,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = tuple(arguments.size)
    seconds = measure(size, arguments.batch_size, arguments.threads, arguments.rounds)
    checkpoint = checkpoint_costs(arguments.rounds)
    checkpoint["share_of_50_steps"] = checkpoint["write_seconds"] / (50 * min(seconds.values()))
    batches = street_batches(size, arguments.batch_size, 4)
    contrast = {name: contrast_costs(model, *batches, rounds=arguments.rounds) for name, model in NETWORKS.items()}
    if arguments.json:
        values = {"threads": arguments.threads, "seconds": seconds, "checkpoint": checkpoint, "contrast": contrast}
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
    else:
        for name, value in seconds.items():
            sys.stdout.write(f"{name:32} {value:7.3f} s  {seconds['fp32'] / value:5.2f}x fp32\n")
        sys.stdout.write(
            f"checkpoint of {checkpoint['bytes'] / 1e6:.0f} MB: written in {checkpoint['write_seconds']:.3f} s, "
            f"{checkpoint['share_of_50_steps']:.2%} of 50 steps; read in {checkpoint['read_seconds']:.3f} s\n"
        )
        for name, methods in contrast.items():
            shown = [f"{method} {cost['ratio'] - 1:+.1%}" for method, cost in methods.items() if method != BASELINE]
            sys.stdout.write(f"over the baseline's step, {name}: {', '.join(shown)}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
