"""Our own stripped network in PyTorch, eager (`run`) or compiled (`compiled`), by the loop that a user writes.

In our environment; MODEL_FOLDER is the branch's `stripped`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from protocol import Masks, spoken

from pipeline.models.network.segmentor import upsample
from pipeline.models.network.weights import load_segmentor


class WithMask(torch.nn.Module):
    """From uint8 `[B,3,H,W]` to mask."""

    def __init__(self, segmentor: torch.nn.Module) -> None:
        super().__init__()
        self.segmentor = segmentor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Classes `[B,H,W]` uint8 of images `[B,3,H,W]` uint8."""
        logits = self.segmentor(self.segmentor.normalise(pixels))
        return upsample(logits, (pixels.shape[2], pixels.shape[3])).argmax(1).to(torch.uint8)


@torch.inference_mode()
def _masks(network: torch.nn.Module, source: Path, target: Path) -> dict[str, object]:
    masks = Masks(target)
    for path in sorted(source.iterdir()):
        pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None]
        masks.write(path.stem, network(pixels)[0].numpy())
    return masks.taken()


def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Masks of all images of a folder."""
    return _masks(WithMask(load_segmentor(folder)[0].eval()), source, target)


def compiled(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Likewise, by `torch.compile`, compiled at the first image."""
    return _masks(torch.compile(WithMask(load_segmentor(folder)[0].eval())), source, target)


if __name__ == "__main__":
    spoken({"run": run, "compiled": compiled}, sys.argv[1:])
