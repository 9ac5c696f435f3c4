"""D-FINE-seg: the nano network for semantic segmentation, exported by its own code, run by its own wrapper.

https://github.com/ArgoHA/D-FINE-seg. Random weights, woken; `load_model` and `read_image` as its README shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import torch
from dfine_seg import load_model
from dfine_seg.dl.export import SemSegExportWrapper, export_to_onnx
from dfine_seg.model.dfine import build_model
from protocol import CLASSES, HEIGHT, WIDTH, Masks, calibrate, spoken


def make(folder: Path) -> dict[str, object]:
    """The exported file and what it is."""
    model = build_model("n", CLASSES, enable_mask_head=False, device="cpu", img_size=(HEIGHT, WIDTH), task="sem_seg")
    calibrate(model, model.decoder.classifier)
    wrapper = SemSegExportWrapper(model).eval()
    image = torch.zeros(1, 3, HEIGHT, WIDTH)
    export_to_onnx(wrapper, folder / "model.onnx", image, 1, False, False, "input", ["sem_seg"])
    return {"network": "D-FINE-seg N", "parameters": sum(each.numel() for each in model.parameters())}


def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Masks of all images of a folder."""
    model = load_model(str(folder / "model.onnx"))
    masks = Masks(target)
    for path in sorted(source.iterdir()):
        masks.write(path.stem, model(cv2.imread(str(path)))[0]["sem_seg"].numpy())
    return masks.taken()


if __name__ == "__main__":
    spoken({"make": make, "run": run}, sys.argv[1:])
