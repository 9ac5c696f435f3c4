"""How the cost of the losses grows: with the pixels of the map, and with anchors times keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.losses.cases import LayerCase, PixelCase, Sizes
from benchmarks.losses.timing import Task, interleave


@dataclass(frozen=True)
class Curve:
    """Cost against size.

    Attributes:
        name: what is measured.
        unit: what the sizes count.
        sizes: ascending.
        seconds: forward and backward, medians.
        exponent: slope of log seconds over log size, by least squares: 1 is linear.
    """

    name: str
    unit: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float


def measure_curves(sizes: Sizes, device: torch.device, rounds: int) -> list[Curve]:
    """Curves of pixel contrast over pixels and over anchors x keys, and of Contextrast over pixels."""
    # as many views as the full size has: the anchors stay as many on small maps, whose groups have few pixels
    sizes = replace(sizes, max_views=max(1, sizes.anchors // sizes.groups))
    over_pixels: dict[int, Task] = {}
    layered: dict[int, Task] = {}
    for factor in (4, 2, 1):
        pixels = PixelCase(replace(sizes, side=sizes.side // factor), device)
        over_pixels[sizes.images * pixels.sizes.side**2] = pixels.step(pixels.term(memory=False))
        crop = (sizes.crop[0] // factor, sizes.crop[1] // factor)
        layered[sizes.crop_images * crop[0] * crop[1]] = LayerCase(replace(sizes, crop=crop), device).step()
    over_keys: dict[int, Task] = {}
    for factor in (16, 4, 1):
        bank = (sizes.bank[0] // factor, sizes.bank[1] // factor)
        case = PixelCase(replace(sizes, bank=bank, side=sizes.side // 4), device)
        over_keys[sizes.anchors * sum(bank) * sizes.classes] = case.step(case.term(memory=True))
    return [
        _curve("pixel_contrast", "pixels of the embedding map", over_pixels, rounds, device),
        _curve("contextrast", "pixels of the images", layered, rounds, device),
        _curve("pixel_contrast with memory", "anchors x keys", over_keys, rounds, device),
    ]


def _curve(name: str, unit: str, tasks: dict[int, Task], rounds: int, device: torch.device) -> Curve:
    seconds = interleave({str(size): task for size, task in tasks.items()}, rounds, device)
    sizes, times = tuple(tasks), tuple(seconds.values())
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    return Curve(name, unit, sizes, times, exponent)


def plot_curves(curves: list[Curve], path: Path) -> None:
    """Write the curves as one PNG, each beside the straight line of linear growth."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.4), layout="constrained")
    for axis, curve in zip(np.atleast_1d(axes), curves, strict=True):
        sizes, milliseconds = np.array(curve.sizes, dtype=float), 1000 * np.array(curve.seconds)
        axis.loglog(sizes, milliseconds, "o-", label=f"measured, slope {curve.exponent:.2f}")
        axis.loglog(sizes, milliseconds[-1] * sizes / sizes[-1], "--", color="grey", label="linear")
        axis.set_title(curve.name)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
        axis.set_xlabel(curve.unit)
        axis.set_ylabel("forward + backward (ms)")
        axis.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
