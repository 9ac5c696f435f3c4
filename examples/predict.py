"""From an image to a mask, to the shares of its classes, to an overlay: `python examples/predict.py IMAGE OVERLAY`.

An image here is an array uint8 [H,W,3] RGB and a mask uint8 [H,W], whatever the engine inside.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from serving import Predictor, read_image, write_image
from serving.contract.errors import run_command
from serving.render import overlay

ENGINE = Path(__file__).parent / "demo" / "model.onnx"


def main() -> int:
    """Print the classes of an image by their shares, and write it under their colours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("overlay", type=Path, help="where the picture is written, .jpg or .png")
    parser.add_argument("--engine", type=Path, default=ENGINE)
    arguments = parser.parse_args()
    image = read_image(arguments.image)
    with Predictor.open(arguments.engine) as predictor:
        mask = predictor.predict(image)
        manifest = predictor.manifest
    pixels = np.bincount(mask.ravel(), minlength=manifest.num_classes)
    for index in np.argsort(-pixels, kind="stable"):
        if pixels[index]:
            sys.stdout.write(f"{100 * pixels[index] / mask.size:5.1f} %  {manifest.class_names[index]}\n")
    write_image(arguments.overlay, overlay(image, mask, manifest.palette))
    return 0


if __name__ == "__main__":
    run_command(main)
