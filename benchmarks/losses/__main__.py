"""Speed and memory of the training methods' losses: `python -m benchmarks.losses.__main__ [--json]`.

Every loss runs forward and backward on one thread beside a floor measured in the same rounds: one gather of as many
rows from the feature map with its dense backward pass, plus one matrix of similarities forward and backward (against a
bank in tiles, since holding that matrix whole is slower). Numbers are medians over rounds in which all take turns; on a
CPU they are CPU time, so that a busy machine changes them little. Supervised terms, weight averaging and distillation
are compared with a training step of the default network (`--only-step` for these alone). Exit status 1 when a number
misses its target.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.losses.cases import QUICK, LayerCase, PixelCase, Sizes
from benchmarks.losses.curves import Curve, measure_curves, plot_curves
from benchmarks.losses.timing import interleave, machine, peak_extra_bytes
from benchmarks.losses.training_step import TrainingStepCase
from pipeline.compute.devices import select_device
from serving.contract.errors import run_command

MEBIBYTE = 2**20
# The share of a training step that a supervised term may add to it; None is reported only.
SHARES: Mapping[str, float | None] = {
    "dice": 0.03,
    "ohem_cross_entropy": 0.03,
    "focal": 0.03,
    "lovasz": 0.05,
    "boundary_cross_entropy": None,
}
AVERAGE_SHARE = 0.02


@dataclass(frozen=True)
class Target:
    """A ratio that must stay on its side of a limit.

    Attributes:
        what: in words.
        value: measured.
        limit: the limit; None where there is none.
        at_least: whether the value must be at least the limit, rather than at most.
    """

    what: str
    value: float
    limit: float | None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is."""
        if self.limit is None:
            return True
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Report:
    """Everything measured.

    Attributes:
        machine: what it was measured on.
        sizes: what was measured.
        seconds: forward and backward of each task, medians.
        extra_bytes: memory that a step holds at its peak beyond what was held before; None where unknown.
        targets: what is judged.
        curves: growth of the cost.
    """

    machine: dict[str, object]
    sizes: Sizes
    seconds: dict[str, float]
    extra_bytes: dict[str, int | None]
    targets: list[Target]
    curves: list[Curve]


def measure(sizes: Sizes, device: torch.device, rounds: int, *, curves: bool, only_step: bool = False) -> Report:
    """Run everything, or `only_step`: what supervised terms, averaging and distillation add to a training step."""
    seconds, extra = ({}, {}) if only_step else measure_contrasts(sizes, device, rounds)
    step = TrainingStepCase(sizes, device)
    tasks = {"training step": step.step(), "cross entropy": step.supervised(()), "EMA": step.average_update()}
    tasks |= {f"cross entropy and {term}": step.supervised((term,)) for term in SHARES}
    tasks["distillation"] = step.distillation()
    seconds |= interleave(tasks, rounds, device)
    del step, tasks
    return Report(
        machine(device),
        sizes,
        seconds,
        extra,
        ([] if only_step else targets_of(seconds, extra, device)) + step_targets(seconds),
        measure_curves(sizes, device, max(1, rounds // 2)) if curves else [],
    )


def measure_contrasts(
    sizes: Sizes, device: torch.device, rounds: int
) -> tuple[dict[str, float], dict[str, int | None]]:
    """Median seconds and peak extra bytes of the contrasts, their floors and the published loop."""
    seconds: dict[str, float] = {}
    pixels = PixelCase(sizes, device)
    batch_step = pixels.step(pixels.term(memory=False))
    banked = pixels.term(memory=True)
    assert banked.bank is not None
    tasks = {"pixel_contrast": batch_step, "floor": pixels.floor(), "bank update": pixels.bank_update(banked.bank)}
    seconds |= interleave(tasks, rounds, device)
    seconds |= interleave(
        {"per-group loop": pixels.per_group_step(), "pixel_contrast beside it": batch_step}, rounds, device
    )
    bank_step, bank_floor = pixels.step(banked), pixels.floor(banked.bank.rings.rows.flatten(0, 1))
    seconds |= interleave({"pixel_contrast with memory": bank_step, "floor with memory": bank_floor}, rounds, device)
    measured = {
        "pixel_contrast": batch_step,
        "floor": tasks["floor"],
        "pixel_contrast with memory": bank_step,
        "floor with memory": bank_floor,
    }
    extra = {name: peak_extra_bytes(task, pixels.clear, device) for name, task in measured.items()}
    del pixels, banked, batch_step, bank_step, bank_floor, tasks, measured
    layers = LayerCase(sizes, device)
    layer_step = layers.step()
    seconds |= interleave({"contextrast": layer_step, "network step": layers.network_step()}, rounds, device)
    extra["contextrast"] = peak_extra_bytes(layer_step, layers.clear, device)
    return seconds, extra


def step_targets(seconds: dict[str, float]) -> list[Target]:
    """What supervised terms and averaging are held to: the share that they add to a step; distillation is reported."""
    step = seconds["training step"]
    added = [
        Target(
            f"{term} added / training step",
            (seconds[f"cross entropy and {term}"] - seconds["cross entropy"]) / step,
            limit,
        )
        for term, limit in SHARES.items()
    ]
    average = Target("EMA / training step", seconds["EMA"] / step, AVERAGE_SHARE)
    return [average, *added, Target("distillation / training step", seconds["distillation"] / step, None)]


def targets_of(seconds: dict[str, float], extra: dict[str, int | None], device: torch.device) -> list[Target]:
    """What the losses are held to."""
    targets = [
        Target("pixel_contrast / its floor", seconds["pixel_contrast"] / seconds["floor"], 1.5),
        Target(
            "per-group loop / pixel_contrast",
            seconds["per-group loop"] / seconds["pixel_contrast beside it"],
            25,
            at_least=True,
        ),
        Target(
            "pixel_contrast with memory / its floor",
            seconds["pixel_contrast with memory"] / seconds["floor with memory"],
            2.5,
        ),
        Target("bank update / floor without memory", seconds["bank update"] / seconds["floor"], 0.5),
        Target(
            "contextrast / network step",
            seconds["contextrast"] / seconds["network step"],
            0.1 if device.type == "cpu" else 0.05,
        ),
    ]
    memory = extra["pixel_contrast with memory"]
    if memory is not None:
        targets.append(Target("extra memory with memory bank (MiB)", memory / MEBIBYTE, 256))
    return targets


def show(report: Report) -> str:
    """The report as text."""
    sizes = report.sizes
    lines = [
        ", ".join(f"{key} {value}" for key, value in report.machine.items()),
        f"pixel_contrast: B={sizes.images} D={sizes.dim} {sizes.side}x{sizes.side}, {sizes.classes} classes per image, "
        f"{sizes.anchors} anchors; bank of {sum(sizes.bank) * sizes.classes} keys",
        f"contextrast: B={sizes.crop_images} {sizes.crop[0]}x{sizes.crop[1]}, strides 4 to 32; "
        f"network step: {sizes.backbone}",
        f"training step: the default network, B={sizes.step_images} {sizes.step_crop[0]}x{sizes.step_crop[1]}, "
        f"{sizes.step_classes} classes, cross entropy, AdamW; distilled: {sizes.teacher}",
        "",
        f"{'forward + backward':42}{'ms':>10}",
        *(f"{name:42}{1000 * value:10.1f}" for name, value in report.seconds.items()),
        "",
        f"{'peak extra memory':42}{'MiB':>10}",
        *(
            f"{name:42}{'unknown' if value is None else f'{value / MEBIBYTE:.0f}':>10}"
            for name, value in report.extra_bytes.items()
        ),
        "",
        f"{'':42}{'value':>10}{'limit':>10}",
    ]
    for target in report.targets:
        limit = "" if target.limit is None else f"{'>=' if target.at_least else '<='} {target.limit:g}"
        verdict = "" if target.met else "   MISSED"
        lines.append(f"{target.what:42}{target.value:10.3f}{limit:>10}{verdict}")
    for curve in report.curves:
        points = ", ".join(
            f"{size}: {1000 * value:.1f} ms" for size, value in zip(curve.sizes, curve.seconds, strict=True)
        )
        lines.append(f"{curve.name} over {curve.unit}: {points}; slope {curve.exponent:.2f}")
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses.__main__", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds per task")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; nothing is judged")
    parser.add_argument(
        "--only-step", action="store_true", help="only what supervised terms, averaging and distillation add"
    )
    parser.add_argument("--curve", type=Path, help="measure how the cost grows, and write this PNG")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 when a target is missed."""
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else Sizes()
    report = measure(
        sizes,
        select_device(options.device),
        max(1, options.rounds),
        curves=options.curve is not None,
        only_step=options.only_step,
    )
    if options.curve is not None:
        plot_curves(report.curves, options.curve)
    met = all(target.met for target in report.targets)
    if options.json:
        sys.stdout.write(json.dumps({**asdict(report), "met": met}, indent=2) + "\n")
    else:
        sys.stdout.write(show(report) + "\n")
    return 0 if met or options.quick else 1


if __name__ == "__main__":
    run_command(main)
