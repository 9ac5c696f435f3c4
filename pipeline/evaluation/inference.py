"""From an image to its mask in PyTorch, by a protocol of scales and flips."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.config import InferenceProtocol
from pipeline.evaluation.evaluation import Predict, UInt8
from pipeline.models.network.layers import upsample
from pipeline.models.network.segmentor import Segmentor
from serving.images.geometry import Placement, place, restore

PLAIN = InferenceProtocol()


def segmentor_predictor(
    segmentor: Segmentor,
    device: torch.device,
    *,
    resize: tuple[int, int] | None = None,
    protocol: InferenceProtocol = PLAIN,
) -> Predict:
    """A predictor that runs a segmentor in PyTorch.

    By the plain protocol it computes what the exported graph and serving do together: place, normalise, run, upsample
    the logits to the padded size, argmax, restore. Otherwise the logits of every scale and mirror image are brought to
    the size of the image (or of `resize`), and the class probabilities are averaged.

    Args:
        segmentor: in evaluation mode, on `device`.
        device: where it runs.
        resize: height and width that every image is resized to first, or None.
        protocol: scales and flip.

    Returns:
        Image `[H,W,3]` uint8 -> mask `[H,W]` uint8. Raises ValueError when called in training mode.
    """

    def run(image: UInt8, size: tuple[int, int] | None) -> tuple[Tensor, Placement]:
        """Logits `[1,C,h,w]` at the padded size."""
        placed, placement = place(image, stride=segmentor.stride, resize=size)
        pixels = torch.from_numpy(np.array(placed)).to(device).permute(2, 0, 1)[None]
        logits = segmentor(segmentor.normalise(pixels))
        return upsample(logits, (placement.padded_height, placement.padded_width)), placement

    def plain(image: UInt8) -> UInt8:
        logits, placement = run(image, resize)
        return restore(_argmax(logits), placement)

    def averaged(image: UInt8) -> UInt8:
        height, width = resize or image.shape[:2]
        total: Tensor | None = None
        for scale in protocol.scales:
            size = max(1, round(height * scale)), max(1, round(width * scale))
            for mirrored in (False, True) if protocol.flip else (False,):
                logits, placement = run(image[:, ::-1] if mirrored else image, size)
                logits = logits[..., : placement.resized_height, : placement.resized_width]
                probabilities = upsample(logits.flip(-1) if mirrored else logits, (height, width)).softmax(dim=1)
                total = probabilities if total is None else total.add_(probabilities)
        assert total is not None, "a protocol has at least one scale"
        return restore(_argmax(total), Placement(image.shape[0], image.shape[1], height, width, height, width))

    def predict(image: UInt8) -> UInt8:
        if segmentor.training:
            raise ValueError("the segmentor is in training mode; call its eval() first")
        with torch.inference_mode():
            return plain(image) if protocol.plain else averaged(image)

    return predict


def _argmax(scores: Tensor) -> UInt8:
    """`[1,C,H,W]` -> `[H,W]` uint8."""
    mask: UInt8 = scores.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
    return mask
