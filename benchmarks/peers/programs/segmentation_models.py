"""segmentation_models.pytorch with a user's script: FPN on EfficientNet-lite0, in PyTorch, as its examples predict.

https://smp.readthedocs.io. Two channels less wide than its default (64, 32), which brings the decoder to the size of
ours. Random weights, woken.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from protocol import CLASSES, HEIGHT, WIDTH, Masks, calibrate, spoken


def network() -> torch.nn.Module:
    """The network, weights random."""
    return smp.FPN(
        "tu-tf_efficientnet_lite0",
        encoder_weights=None,
        classes=CLASSES,
        decoder_pyramid_channels=64,
        decoder_segmentation_channels=32,
    )


class WithMask(torch.nn.Module):
    """What a user exports: the network and the argmax."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classes `[B,H,W]` uint8 of images `[B,3,H,W]`."""
        return self.inner(image).argmax(1).to(torch.uint8)


def make(folder: Path) -> dict[str, object]:
    """The weights, an exported file, and what they are."""
    model = network()
    calibrate(model, model.segmentation_head[0])
    model.eval()
    torch.save(model.state_dict(), folder / "model.pt")
    image = torch.zeros(1, 3, HEIGHT, WIDTH)
    torch.onnx.export(WithMask(model), (image,), folder / "model.onnx", dynamo=True, external_data=False, verbose=False)
    return {
        "network": "FPN on EfficientNet-lite0",
        "parameters": sum(each.numel() for each in model.parameters()),
    }


@torch.inference_mode()
def run(folder: Path, source: Path, target: Path) -> dict[str, object]:
    """Masks of all images of a folder."""
    model = network()
    model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    model.eval()
    masks = Masks(target)
    for path in sorted(source.iterdir()):
        image = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        masks.write(path.stem, model(image).argmax(1)[0].to(torch.uint8).numpy())
    return masks.taken()


if __name__ == "__main__":
    spoken({"make": make, "run": run}, sys.argv[1:])
