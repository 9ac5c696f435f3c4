"""Whether the slots of a batch are independent, on attention: where engines were shipped that mix them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from export.artifacts.onnx_fp32.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.checks.examination.reference import Reference
from export.checks.verification import run_checks
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from serving.contract.manifest import read_sidecar, write_sidecar
from tests.export.conftest import wake


def attention_of_the_first_image(model: ModelProto) -> int:
    """Let every image of a batch attend to the keys and values of the first: right for one image alone.

    So TensorRT 10.11 and 11.1 are told to compute SegFormer: bit by bit right for one image, silently wrong for two
    (github.com/NVIDIA/TensorRT/issues/4853).

    Returns:
        How many products of attention were damaged.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in model.graph.node:
        if node.op_type == "MatMul" and constants.isdisjoint(node.input):
            first = f"{node.input[1]}_first"
            bounds = ["first_start", "first_end", "first_axis"]
            nodes.append(helper.make_node("Slice", [node.input[1], *bounds], [first], name=first))
            node.input[1] = first
            count += 1
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, value in (("first_start", 0), ("first_end", 1), ("first_axis", 0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    return count


@pytest.mark.slow
def test_attention_to_the_first_image_of_a_batch_is_caught_by_the_batches_alone(info, examine, tmp_path):
    config = ModelConfig(backbone="pvt_v2_b0", pretrained=False, head="segformer")
    segmentor = wake(build_segmentor(config, info.num_classes, seed=0), seed=0)
    info = dataclasses.replace(info, model=config, provenance={})
    path = export(segmentor, ExportContext("onnx_fp32", tmp_path, info), OutputOptions())

    def failing() -> set[str]:
        with examine(path, reference=Reference(segmentor, info)) as context:
            results = run_checks(context, ["logits", "masks", "shapes", "batch"])
        assert {result.status for result in results} <= {"pass", "fail"}, results
        return {result.name for result in results if result.status == "fail"}

    assert failing() == set()
    model = onnx.load(path)
    manifest = dataclasses.replace(read_sidecar(path), sha256=None)
    assert attention_of_the_first_image(model) == 2 * 8  # two products in each of the eight blocks
    path.write_bytes(model.SerializeToString())
    write_sidecar(manifest, path)
    assert failing() >= {"batch"}
    assert failing().isdisjoint({"logits", "masks"}), "they feed one image at a time"
