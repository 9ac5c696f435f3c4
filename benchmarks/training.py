"""`python -m benchmarks.training [--json]`: training steps on the CPU by precision; contrast, checkpoints, ranks.

What a contrast adds to the baseline's step, projection heads included, is counted in CPU time over whole steps that
take turns, of the default network and of HRNetV2-W18s, on generated streets of the same size.

A checkpoint of the default network with AdamW's state and the best weights is written, and read back into a trainee, as
a training does. The cost is that of one every 50 iterations over the time of 50 steps of the same batch and size, in
the fastest precision measured; the time to read is what a resume starts later than a fresh training. Two gloo ranks of
one thread train the default network against one, on batches of the same size: whole steps of `pixel_contrast`.
`--parts` measures some alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from benchmarks.losses.contrast_step import BASELINE, NETWORKS, contrast_costs, street_batches
from pipeline.compute.devices import keep_large_depthwise_in_float32, use_threads
from pipeline.data.reading.allocator import keep_freed_memory
from pipeline.losses.pixel_contrast.loss import PixelContrastConfig
from pipeline.losses.shared.distributed import own_part
from pipeline.losses.supervised.loss import SupervisedLoss
from pipeline.losses.supervised.term import Supervision
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import Segmentor, build_segmentor
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.config import OptimizerConfig, TrainConfig
from pipeline.training.distributed.batch_norm import synchronise_batch_norm
from pipeline.training.faults.finite import FiniteWatch
from pipeline.training.methods import MethodConfig
from pipeline.training.optimisation import build_optimizer
from pipeline.training.resuming.store import CheckpointStore
from pipeline.training.resuming.tensors import restore, state_tensors, state_values
from pipeline.training.state import TrainingState
from pipeline.training.step import Objective, TrainingStep
from serving.contract.command import require_at_least
from serving.contract.errors import UserError, did_you_mean, run_command

PARTS = ("seconds", "checkpoint", "contrast", "ranks")
RANK_STEPS = 6  # that are timed of each measurement
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


def rank_speed(size: tuple[int, int], batch_size: int, steps: int, pairs: int) -> dict[str, Any]:
    """Images per second of one rank and of two, of one thread each, and by how much two are faster.

    Args:
        size: height and width of the images.
        batch_size: of the global batch.
        steps: that are timed, after one that is not.
        pairs: interleaved measurements of both, each in new processes.
    """
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(pairs):
        for ranks, found in speeds.items():
            with tempfile.TemporaryDirectory(prefix="contrail-ranks-") as folder:
                arguments = (ranks, Path(folder), size, batch_size, steps)
                torch.multiprocessing.spawn(_time_rank, arguments, nprocs=ranks)  # type: ignore[attr-defined, no-untyped-call]
                seconds = max(float((Path(folder) / f"rank{rank}").read_text()) for rank in range(ranks))
            found.append(batch_size * steps / seconds)
    return {
        "images_per_second": {str(ranks): statistics.median(found) for ranks, found in speeds.items()},
        "ratio": statistics.median(two / one for one, two in zip(speeds[1], speeds[2], strict=True)),
        "pairs": [two / one for one, two in zip(speeds[1], speeds[2], strict=True)],
        "cores": len(os.sched_getaffinity(0)),
    }


def _time_rank(rank: int, ranks: int, folder: Path, size: tuple[int, int], batch_size: int, steps: int) -> None:
    use_threads(1)
    keep_freed_memory()  # as whoever reads batches does
    if ranks > 1:
        dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=ranks)
    device = torch.device("cpu")
    method = MethodConfig("pixel_contrast", PixelContrastConfig(warmup_fraction=0.0))
    term = build_loss_term(method, num_classes=11, ignore_index=255, training_images=160)
    trainee = attach_training_heads(
        build_segmentor(ModelConfig(pretrained=False), 11, seed=0), term, auxiliary=True, seed=0
    )
    trainee.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    synchronise_batch_norm(trainee, device)
    config = TrainConfig(iterations=steps + 1, batch_size=batch_size, threads=1, precision="fp32")
    state = TrainingState(build_optimizer(trainee.train(), config.optimizer))
    step = TrainingStep(
        trainee,
        Objective(method, term, SupervisedLoss((), Supervision(255, None, auxiliary_weight=0.4))),
        config,
        seed=0,
        device=device,
        watch=FiniteWatch(device, deferred=False),
        mark=lambda _: None,
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, *size), dtype=torch.uint8, generator=generator)
    coarse = torch.randint(0, 11, (batch_size, size[0] // 32, size[1] // 32), generator=generator)
    labels = coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)
    started = 0.0
    for number in range(steps + 1):
        step([(own_part(images), own_part(labels))], state)
        if number == 0:
            started = time.perf_counter()
    (folder / f"rank{rank}").write_text(str(time.perf_counter() - started))
    if ranks > 1:
        dist.destroy_process_group()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5, help="measurements of one rank and of two (default 5)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure, with commas (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    require_at_least(arguments, dict.fromkeys(("batch_size", "threads", "rounds", "pairs"), 1))
    parts = [name.strip() for name in arguments.parts.split(",")]
    for name in parts:
        if name not in PARTS:
            raise UserError(f"--parts: no part {name!r}{did_you_mean(name, PARTS)}")
    size, batch_size = tuple(arguments.size), arguments.batch_size
    values: dict[str, Any] = {"threads": arguments.threads}
    if {"seconds", "checkpoint"} & set(parts):
        values["seconds"] = measure(size, batch_size, arguments.threads, arguments.rounds)
    if "checkpoint" in parts:
        costs = checkpoint_costs(arguments.rounds)
        fastest = min(values["seconds"].values())
        values["checkpoint"] = {**costs, "share_of_50_steps": costs["write_seconds"] / (50 * fastest)}
    if "contrast" in parts:
        batches = street_batches(size, batch_size, 4)
        values["contrast"] = {
            name: contrast_costs(model, *batches, rounds=arguments.rounds) for name, model in NETWORKS.items()
        }
    if "ranks" in parts:
        values["ranks"] = rank_speed(size, batch_size, steps=RANK_STEPS, pairs=arguments.pairs)
    sys.stdout.write(json.dumps(values, indent=2) + "\n" if arguments.json else _shown(values))
    return 0


def _shown(values: dict[str, Any]) -> str:
    seconds, lines = values.get("seconds", {}), []
    lines += [f"{name:32} {value:7.3f} s  {seconds['fp32'] / value:5.2f}x fp32" for name, value in seconds.items()]
    if costs := values.get("checkpoint"):
        lines.append(
            f"checkpoint of {costs['bytes'] / 1e6:.0f} MB: written in {costs['write_seconds']:.3f} s, "
            f"{costs['share_of_50_steps']:.2%} of 50 steps; read in {costs['read_seconds']:.3f} s"
        )
    for name, methods in values.get("contrast", {}).items():
        shown = [f"{method} {cost['ratio'] - 1:+.1%}" for method, cost in methods.items() if method != BASELINE]
        lines.append(f"over the baseline's step, {name}: {', '.join(shown)}")
    if ranks := values.get("ranks"):
        one, two = ranks["images_per_second"]["1"], ranks["images_per_second"]["2"]
        lines.append(f"two ranks: {two:.1f} images/s, one: {one:.1f}; {ranks['ratio']:.2f}x, median of pairs")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
