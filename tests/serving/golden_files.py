"""Golden files made without torch: the graph's own logits stand for PyTorch's."""

import numpy as np
import onnx
import onnxruntime

from serving.golden.golden import Golden, GoldenInput, LabRun
from serving.images.geometry import place, restore

SIZES = (("crop 1", 96, 128), ("crop 2", 96, 128), ("noise", 64, 64), ("odd", 61, 93))


def logits_of(model, image):
    """(logits `[C,h,w]` of an image as it runs, its placement)."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.append(onnx.ValueInfoProto(name="logits"))
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    placed, placement = place(image, stride=32)
    return session.run(["logits"], {"image": placed[None]})[0][0], placement


def golden_of(model, sha256, photo, *, precision="fp32", error=1e-5, max_disagreement=1e-4):
    """Golden files of a model whose own logits are the reference."""
    inputs, largest = [], 0.0
    for seed, (name, height, width) in enumerate(SIZES):
        image = photo(height, width, seed)
        logits, placement = logits_of(model, image)
        highest = np.sort(logits, axis=0)
        margin = restore(highest[-1] - highest[-2], placement).astype(np.float16)
        inputs.append(GoldenInput(name, image, restore(logits.argmax(0).astype(np.uint8), placement), margin))
        largest = max(largest, float(np.abs(logits).max()))
    masks = tuple(each.mask for each in inputs)
    lab = [
        LabRun(runtime, precision, "1", max_disagreement, error, largest, {}, masks)
        for runtime in ("onnxruntime", "openvino")
    ]
    return Golden(sha256, tuple(inputs), tuple(lab))
