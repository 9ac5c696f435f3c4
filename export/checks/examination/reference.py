"""The network that an engine must equal, in PyTorch."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray

from export.checks.examination.deviation import Float32, UInt8
from export.checks.examination.tf32 import tf32_products
from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.evaluation.evaluation import Evaluation, evaluate
from pipeline.evaluation.inference import segmentor_predictor
from pipeline.models.network.segmentor import Segmentor, upsample
from pipeline.models.network.weights import SegmentorInfo

_REDUCED = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Reference:
    """A stripped segmentor, run in single precision without the deploy graph.

    Normalisation and upsampling are the segmentor's own, so that an error in the deploy graph cannot hide in both.

    Args:
        segmentor: in evaluation mode.
        info: what it is.
        device: where it runs; TensorFloat-32 is switched off there.
    """

    def __init__(self, segmentor: Segmentor, info: SegmentorInfo, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.segmentor = segmentor.to(self.device)
        self.info = info
        self._copies: dict[torch.dtype, Segmentor] = {}
        self._evaluations: list[tuple[PreparedSplit, float, Evaluation]] = []

    def logits(self, images: UInt8) -> Float32:
        """Logits `[B,C,h,w]` float32 at the resolution of images `[B,h,w,3]` uint8, h and w multiples of the stride."""
        with torch.inference_mode(), _full_precision():
            pixels = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2)
            low = self.segmentor(self.segmentor.normalise(pixels))
            result: Float32 = upsample(low, (images.shape[1], images.shape[2])).float().cpu().numpy()
        return result

    def rounding_error(self, images: UInt8, precision: str) -> float:
        """What PyTorch itself loses by rounding, relative to the largest logit.

        The largest difference between this network's logits in `precision` and in the next finer one: fp16 and bf16
        (every layer in it) and tf32 (every product in it) beside single precision, all else in single precision beside
        double. An image on which the network is ill-conditioned, such as one of a single colour, cannot be asked to
        agree better between two implementations.

        Args:
            images: `[B,h,w,3]` uint8, h and w multiples of the stride.
            precision: that the engine computes in.
        """
        coarse = self.logits(images).astype(np.float64)
        if precision in _REDUCED:
            fine, coarse = coarse, self._logits_in(_REDUCED[precision], images)
        elif precision == "tf32":
            with tf32_products():
                fine, coarse = coarse, self.logits(images).astype(np.float64)
        else:
            fine = self._logits_in(torch.float64, images)
        largest = max(float(np.abs(fine).max()), float(np.finfo(np.float32).tiny))
        return float(np.abs(coarse - fine).max()) / largest

    def _logits_in(self, dtype: torch.dtype, images: UInt8) -> NDArray[np.float64]:
        """As `logits`, by a copy of the network in `dtype`. Half types take the normalised image, as engines do."""
        if dtype not in self._copies:
            self._copies[dtype] = copy.deepcopy(self.segmentor).to(dtype)
        network = self._copies[dtype]
        source = network if dtype == torch.float64 else self.segmentor
        with torch.inference_mode(), _full_precision():
            pixels = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2).to(source.mean.dtype)
            normalised = (pixels - source.mean[:, None, None]) / source.std[:, None, None]
            low = network(normalised.to(dtype)).to(source.mean.dtype)
            result: NDArray[np.float64] = upsample(low, (images.shape[1], images.shape[2])).double().cpu().numpy()
        return result

    def evaluation(self, split: PreparedSplit, boundary_ratio: float) -> Evaluation:
        """The network on a split, at the labels' resolution; computed once per split."""
        for known_split, known_ratio, evaluation in self._evaluations:
            if known_split is split and known_ratio == boundary_ratio:
                return evaluation
        predict = segmentor_predictor(self.segmentor, self.device, resize=self.info.resize)
        with _full_precision():
            evaluation = evaluate(
                predict,
                split,
                self.info.num_classes,
                self.info.ignore_index,
                boundary_ratio=boundary_ratio,
                protocol="PyTorch: single scale 1, no flip",
            )
        self._evaluations.append((split, boundary_ratio, evaluation))
        return evaluation


def _full_precision() -> AbstractContextManager[None]:
    """Run cuDNN without TensorFloat-32, which would round the reference to 10 bits."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags
