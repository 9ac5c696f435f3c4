"""The graph that ships: everything from the bytes of an image to the bytes of its mask."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.models.network.segmentor import Segmentor, upsample

OutputKind = Literal["mask", "mask+confidence"]

INPUT_NAME = "image"
MASK_NAME = "mask"
CONFIDENCE_NAME = "confidence"
LOGITS_NAME = "logits"  # internal: what argmax reads, [B,C,H,W] in the precision of the network

MAX_CLASSES = 256  # a mask is uint8


class DeployGraph(nn.Module):
    """uint8 RGB `[B,H,W,3]` -> mask uint8 `[B,H,W]`, H and W multiples of the segmentor's stride.

    Cast, normalisation, transposition, network, upsampling and argmax are all inside, so that no client can prepare an
    image wrongly. Cast and normalisation come first because TensorRT does not transpose uint8.

    Args:
        segmentor: the network; used as it is, in evaluation mode.
        output: `mask`, or `mask+confidence` for a second output, uint8 `[B,H,W]`: the softmax probability of the
            predicted class times 255, rounded.

    Raises:
        ValueError: the network has more classes than a uint8 mask can hold, or is in training mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, segmentor: Segmentor, output: OutputKind = "mask") -> None:
        super().__init__()
        if segmentor.num_classes > MAX_CLASSES:
            raise ValueError(f"a uint8 mask holds at most {MAX_CLASSES} classes, got {segmentor.num_classes}")
        if segmentor.training:
            raise ValueError("the segmentor is in training mode: its batch norms would use the statistics of one batch")
        self.segmentor = segmentor
        self.output: OutputKind = output
        self.training = False
        self.register_buffer("mean", _scalar_when_equal(segmentor.mean), persistent=False)
        self.register_buffer("std", _scalar_when_equal(segmentor.std), persistent=False)

    def logits(self, image: Tensor) -> Tensor:
        """Logits `[B,C,H,W]` at the resolution of `image` uint8 `[B,H,W,3]`."""
        normalised = (image.to(torch.float32) - self.mean) / self.std
        images = normalised.permute(0, 3, 1, 2).to(next(self.segmentor.parameters()).dtype)
        return upsample(self.segmentor(images), (image.shape[1], image.shape[2]))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The mask, or mask and confidence, of `image` uint8 `[B,H,W,3]`."""
        logits = self.logits(image)
        mask = logits.argmax(dim=1).to(torch.uint8)
        if self.output == "mask":
            return mask
        # softmax of the largest logit alone: 1 / sum exp(logit - largest), without the other probabilities.
        above = logits - logits.amax(dim=1, keepdim=True)
        probability = 1.0 / above.to(torch.float32).exp().sum(dim=1)
        return mask, torch.round(probability * 255.0).to(torch.uint8)


def _scalar_when_equal(values: Tensor) -> Tensor:
    """`[3]` -> `[]` where the three are equal: runtimes broadcast a scalar far faster than a short last axis."""
    return values[0].clone() if bool((values == values[0]).all()) else values.clone()
