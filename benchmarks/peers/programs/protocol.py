"""What every peer's program shares: sizes, how random weights are woken, how masks are written and time is taken.

Runs in the environments of the peers, with PyTorch, numpy and Pillow and nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT, WIDTH = 384, 480  # near to CamVid's 360x480, a multiple of 32, so that nobody has to pad
CLASSES = 19  # Cityscapes'
PICTURES = 4  # that random weights are woken with


class Masks:
    """The masks of a run, and its time from the first to the last.

    Args:
        target: folder for the masks.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.times: list[float] = []

    def write(self, name: str, mask: np.ndarray) -> None:
        """Write a mask `[H,W]` of class indices as NAME.png."""
        from PIL import Image  # not where tolerances are judged alone

        Image.fromarray(mask.astype(np.uint8)).save(self.target / f"{name}.png", compress_level=3)
        self.times.append(time.perf_counter())

    def taken(self) -> dict[str, object]:
        """Images per second, the first one left out: what is prepared at the first image is no part of the rate."""
        apart = self.times[-1] - self.times[0]
        return {"images": len(self.times), "images_per_second": (len(self.times) - 1) / apart if apart else None}


def calibrate(network: Any, classifier: Any) -> None:
    """Give a network of random weights outputs in which every class appears.

    Statistics of the batch norms are those of a few pictures, and every class's logit gets the same mean and deviation.

    Args:
        network: a torch module, called on `[B,3,H,W]` float images in 0..1.
        classifier: its last convolution, `[B,CLASSES,h,w]`.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(PICTURES, 3, HEIGHT // 24, WIDTH // 24, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)
    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    found: list[torch.Tensor] = []
    hook = classifier.register_forward_hook(lambda module, inputs, output: found.append(output.detach()))
    with torch.no_grad():
        network.train()
        for norm in norms:
            norm.momentum = 1.0
        network(images)
        network.eval()
        found.clear()
        network(images)
        mean, deviation = found[-1].mean((0, 2, 3)), found[-1].std((0, 2, 3))
        classifier.weight.div_(deviation[:, None, None, None])
        classifier.bias.sub_(mean).div_(deviation)
    hook.remove()


def spoken(programs: dict[str, Callable[..., dict[str, object]]], words: list[str]) -> None:
    """Run the program that the command line names, and print what it returns as the last line, JSON."""
    name, *paths = words
    threads = int(os.environ["OMP_NUM_THREADS"])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    sys.stdout.write(json.dumps(programs[name](*map(Path, paths))) + "\n")
