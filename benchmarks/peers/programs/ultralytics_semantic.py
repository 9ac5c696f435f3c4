"""Ultralytics: `make FOLDER` builds YOLO26n for semantic segmentation and exports it; `run` predicts as its page shows.

https://docs.ultralytics.com/tasks/semantic. The weights are random (none can be downloaded here), woken so that every
image has several classes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from protocol import CLASSES, HEIGHT, WIDTH, Masks, calibrate, spoken
from ultralytics import YOLO


def make(folder: Path) -> dict[str, object]:
    """The exported file and what it is."""
    model = YOLO("yolo26n-sem.yaml")
    model.model.nc = CLASSES
    calibrate(model.model, model.model.model[-1].classifier[1])
    weights = folder / "model.pt"
    model.save(weights)
    model = YOLO(weights)
    model.export(format="onnx", imgsz=(HEIGHT, WIDTH))
    return {"network": "YOLO26n-sem", "parameters": sum(each.numel() for each in model.model.parameters())}


def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Masks of all images of a folder."""
    model = YOLO(folder / "model.onnx", task="semantic")
    masks = Masks(target)
    for result in model.predict(source=str(source), imgsz=(HEIGHT, WIDTH), stream=True, verbose=False):
        masks.write(Path(result.path).stem, result.semantic_mask.data.cpu().numpy())
    return masks.taken()


if __name__ == "__main__":
    spoken({"make": make, "run": run}, sys.argv[1:])
