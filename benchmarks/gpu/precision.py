"""What rounding does to the logits: TensorFloat-32 as the device computes it, fp16 and bf16."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from export.checks.examination.images import scene
from export.checks.examination.reference import Reference
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor, upsample
from pipeline.models.network.weights import SegmentorInfo

CLASSES = 19


def measure(device: Literal["cpu", "cuda"], *, toy: bool) -> dict[str, Any]:
    """Differences relative to the largest logit, on scenes that an untrained network's statistics are of."""
    side = 64 if toy else 512
    config = ModelConfig("mobilenetv3_small_100" if toy else "tf_efficientnet_lite0", False)
    segmentor = build_segmentor(config, CLASSES, seed=0)
    generator = np.random.default_rng(0)
    images = np.stack([scene(side, side, generator) for _ in range(4)])
    for module in segmentor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        segmentor.train()(segmentor.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
    names = tuple(f"class {index}" for index in range(CLASSES))
    info = SegmentorInfo(config, CLASSES, names, ((0, 0, 0),) * CLASSES, 255)
    reference = Reference(segmentor.eval(), info, torch.device(device))
    exact = reference.logits(images)
    return {
        "largest_logit": float(np.abs(exact).max()),
        "tf32_on": _relative(exact, _with_tf32(reference, images)),
        "rounding": {name: reference.rounding_error(images, name) for name in ("fp32", "tf32", "fp16", "bf16")},
    }


def _relative(exact: Any, other: Any) -> float:
    return float(np.abs(exact - other).max() / np.abs(exact).max())


def _with_tf32(reference: Reference, images: Any) -> Any:
    """The logits as `reference` computes them, but with TensorFloat-32 where the device has it."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = True
    try:
        with torch.inference_mode():
            pixels = torch.from_numpy(images.copy()).to(reference.device).permute(0, 3, 1, 2)
            low = reference.segmentor(reference.segmentor.normalise(pixels))
            return upsample(low, images.shape[1:3]).float().cpu().numpy()
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
