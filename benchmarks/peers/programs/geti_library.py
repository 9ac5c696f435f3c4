"""Geti Library: SegNeXt-T, exported to OpenVINO by its own code, run by OpenVINO ModelAPI as its README advises.

https://github.com/open-edge-platform/geti (package getitune). Random weights, woken.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
from getitune.backend.lightning.models.base import DataInputParams
from getitune.backend.lightning.models.segmentation.segnext import SegNext
from getitune.types.export import ExportFormat
from model_api.models import SegmentationModel
from protocol import CLASSES, HEIGHT, WIDTH, Masks, calibrate, spoken


def make(folder: Path) -> dict[str, object]:
    """The exported files and what they are."""
    data = DataInputParams(input_size=(HEIGHT, WIDTH), mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    model = SegNext(model_name="segnext_tiny", label_info=CLASSES, data_input_params=data, pretrained=False)
    calibrate(model.model, model.model.decode_head.conv_seg)
    model.export(folder, "model", ExportFormat.OPENVINO)
    model.export(folder, "model", ExportFormat.ONNX)
    return {"network": "SegNeXt-T", "parameters": sum(each.numel() for each in model.model.parameters())}


def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Masks of all images of a folder."""
    model = SegmentationModel.create_model(str(folder / "model.xml"))
    masks = Masks(target)
    for path in sorted(source.iterdir()):
        masks.write(path.stem, model(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)).resultImage)
    return masks.taken()


if __name__ == "__main__":
    spoken({"make": make, "run": run}, sys.argv[1:])
