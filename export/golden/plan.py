"""The golden files of a TensorRT plan: those inputs of its ONNX file that it takes, and its own masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.golden.lab import write_golden
from serving.contract.manifest import read_sidecar
from serving.engines.runtimes.tensorrt.plan import PlanDetails
from serving.golden.golden import Golden, GoldenInput, golden_folder
from serving.images.geometry import place

UInt8 = NDArray[np.uint8]


def write_golden_of_plan(plan_path: Path, onnx_path: Path) -> bool:
    """Write `golden/` beside a plan.

    Where the plan takes none of the ONNX file's inputs (it is made for larger images), one of them is repeated until it
    fills the plan's usual shape; PyTorch never saw that, so that the plan's own mask is all there is to compare with.

    Args:
        plan_path: its manifest beside it.
        onnx_path: what it was built of, with golden files.

    Returns:
        Whether the plan could be run here; where not, nothing is written.

    Raises:
        UserError: the ONNX file has no golden files.
    """
    manifest = read_sidecar(plan_path)
    spec, profile = manifest.input, PlanDetails.of(manifest, plan_path).profile
    inputs = Golden.load(golden_folder(onnx_path)).inputs

    def fits(image: UInt8) -> bool:
        placed, _ = place(image, stride=spec.stride, resize=spec.resize)
        return profile.holds((profile.opt[0], *placed.shape))

    taken = [each for each in inputs if fits(each.image)]
    if not taken:
        height, width = profile.opt[1:3]
        image = inputs[0].image
        repeats = (-(-height // image.shape[0]), -(-width // image.shape[1]), 1)
        filled = np.ascontiguousarray(np.tile(image, repeats)[:height, :width])
        unknown = np.zeros((height, width), np.uint8)
        taken = [GoldenInput("filled", filled, unknown, unknown.astype(np.float16))]
    return write_golden(plan_path, taken)
