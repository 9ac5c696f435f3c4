"""The half-precision file: the same bytes in and out, half inside, and close to PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from export.artifacts.onnx_fp16.conversion import to_float16
from export.artifacts.onnx_fp16.export import export
from export.artifacts.shared.exporter import ExportContext
from export.artifacts.shared.options import OutputOptions
from export.artifacts.shared.single_precision import build_model
from export.checks.examination.images import scene
from export.checks.examination.reference import Reference
from export.graph.costs import infer_types
from export.graph.deploy import DeployGraph
from export.graph.inner_logits import expose_logits
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from serving.contract.errors import UserError
from serving.contract.manifest import METADATA_KEY, Manifest, verify_sidecar


@pytest.fixture(scope="module")
def half_path(segmentor, info, tmp_path_factory):
    return export(segmentor, ExportContext("onnx_fp16", tmp_path_factory.mktemp("half"), info), OutputOptions())


@pytest.fixture(scope="module")
def model(half_path):
    return onnx.load(half_path)


def settle(network):
    """Let the batch norms of an untrained network fit its activations, which half precision cannot hold else."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        images = np.stack([scene(128, 128, np.random.default_rng(seed)) for seed in range(2)])
        for _ in range(2):
            network(network.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
    return network.eval()


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_bytes_outside_and_half_inside(model, half_path, exported):
    assert [(value.name, value.type.tensor_type.elem_type) for value in (*model.graph.input, *model.graph.output)] == [
        ("image", TensorProto.UINT8),
        ("mask", TensorProto.UINT8),
    ]
    types = infer_types(model, (1, 64, 96, 3))
    for node in model.graph.node:
        if node.op_type in ("Conv", "Relu", "HardSwish", "HardSigmoid", "Mul", "Add", "GlobalAveragePool", "Resize"):
            assert types[node.output[0]].dtype == TensorProto.FLOAT16, node.name
    assert types["logits"].dtype == TensorProto.FLOAT16
    assert half_path.stat().st_size < 0.62 * exported.stat().st_size
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]


def test_it_has_the_operators_of_the_fp32_file_and_one_cast(model, exported):
    operators = [node.op_type for node in onnx.load(exported).graph.node]
    halves = [node.op_type for node in model.graph.node]
    assert halves[:5] == ["Cast", "Sub", "Cast", "Transpose", "Conv"]
    del halves[2]
    assert halves == operators


def test_its_masks_and_logits_are_close_to_pytorchs(model, segmentor):
    runner = session(expose_logits(model))
    generator = np.random.default_rng(5)
    for batch, height, width in [(1, 32, 32), (3, 64, 96)]:
        images = np.stack([scene(height, width, generator) for _ in range(batch)])
        mask, logits = runner.run(None, {"image": images})
        with torch.inference_mode():
            expected = DeployGraph(segmentor).logits(torch.from_numpy(images)).numpy()
        assert logits.dtype == np.float16
        assert np.abs(logits.astype(np.float32) - expected).max() < 1e-2 * np.abs(expected).max()
        assert np.mean(mask != expected.argmax(axis=1)) < 1e-2


def test_the_manifest_says_so(half_path, model):
    manifest = verify_sidecar(half_path)
    assert (manifest.precision, manifest.kind, manifest.name) == ("fp16", "onnx", "onnx_fp16")
    assert Manifest.from_json(model.metadata_props[0].value).precision == "fp16"
    assert [item.key for item in model.metadata_props] == [METADATA_KEY]


def test_exported_again_it_is_the_same_bytes(half_path, segmentor, info, tmp_path):
    again = export(segmentor, ExportContext("onnx_fp16", tmp_path, info), OutputOptions())
    assert again.read_bytes() == half_path.read_bytes()


def test_the_confidence_is_computed_in_single_precision(segmentor):
    full = build_model(segmentor, "mask+confidence")
    model = to_float16(full, (1, 64, 96, 3))
    types = infer_types(model, (1, 64, 96, 3))
    exponentials = [node for node in model.graph.node if node.op_type == "Exp"]
    assert exponentials and all(types[node.output[0]].dtype == TensorProto.FLOAT for node in exponentials)
    image = scene(64, 96, np.random.default_rng(3))[None]
    found, expected = (session(each).run(None, {"image": image}) for each in (model, full))
    assert np.abs(found[1].astype(int) - expected[1].astype(int)).max() <= 3


def test_a_weight_beyond_half_precision_is_refused(exported):
    model = onnx.load(exported)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = 1e5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    with pytest.raises(UserError, match="1 weights exceed 65504"):
        to_float16(model, (1, 64, 96, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("resnet50", "deeplabv3"),
        ("hrnet_w18_small_v2", "hrnet"),
        ("hrnet_w18_small_v2", "ocr"),
        ("mobilenetv2_100", "fcn"),
    ],
)
def test_every_kind_of_network_has_a_half_file_that_runs(backbone, head):
    network = build_segmentor(ModelConfig(backbone=backbone, head=head, pretrained=False), 5, seed=0)
    settle(network)
    full = build_model(network, "mask")
    side = 4 * network.stride
    model = to_float16(full, (1, side, side, 3))
    onnx.checker.check_model(model, full_check=True)
    image = scene(side, side, np.random.default_rng(0))[None]
    found, expected = (session(expose_logits(each)).run(["logits"], {"image": image})[0] for each in (model, full))
    assert found.dtype == np.float16
    lost = np.abs(found.astype(np.float32) - expected).max() / np.abs(expected).max()
    assert lost < max(1e-2, 2 * Reference(network, None).rounding_error(image, "fp16")), "beside PyTorch's own loss"


def test_attention_scores_keep_single_precision():
    """Products over hundreds of channels overflow in half before they are scaled."""
    shape = [1, 16, 256]
    graph = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (uint8[1,16,256,3] image) => (uint8[1,16,16] mask)
        <float scale = {0.0625}, int64[1] axis = {3}>
        {
            x = Cast<to=1>(image)
            y = ReduceMean<keepdims=0>(x, axis)
            z = Relu(y)
            t = Transpose<perm=[0, 2, 1]>(z)
            scores = MatMul(z, t)
            scaled = Mul(scores, scale)
            logits = Softmax<axis=1>(scaled)
            index = ArgMax<axis=1, keepdims=0>(logits)
            expanded = Unsqueeze(index, axis1)
            wide = Expand(expanded, size)
            mask = Cast<to=2>(wide)
        }"""
    )
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axis1"))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, 16, 16], np.int64), "size"))
    model = to_float16(graph, (*shape, 3))
    types = infer_types(model, (*shape, 3))
    assert types["z"].dtype == TensorProto.FLOAT16
    assert types["scores"].dtype == types["scaled"].dtype == types["logits"].dtype == TensorProto.FLOAT
    image = np.full((1, 16, 256, 3), 255, np.uint8)
    assert session(model).run(None, {"image": image})[0].shape == (1, 16, 16)


def test_sums_of_linear_attention_keep_single_precision():
    """They run over every position before the division: here 16 times 255 squared, beyond half precision."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]>
        g (uint8[1,16,256,3] image) => (uint8[1,16,255] mask)
        <float tiny = {1e-5}, int64[1] zero = {0}, int64[1] last = {255}, int64[1] end = {256}, int64[1] axis = {2},
         int64[1] colours = {3}>
        {
            x = Cast<to=1>(image)
            y = ReduceMean<keepdims=0>(x, colours)
            q = Relu(y)
            k = Transpose<perm=[0, 2, 1]>(q)
            kv = MatMul(k, q)
            sums = MatMul(q, kv)
            above = Slice(sums, zero, last, axis)
            below = Slice(sums, last, end, axis)
            safe = Add(below, tiny)
            quotient = Div(above, safe)
            logits = Relu(quotient)
            mask = Cast<to=2>(logits)
        }"""
    )
    half = to_float16(model, (1, 16, 256, 3))
    types = infer_types(half, (1, 16, 256, 3))
    assert {types[name].dtype for name in ("q", "k", "logits")} == {TensorProto.FLOAT16}
    assert {types[name].dtype for name in ("kv", "sums", "safe", "quotient")} == {TensorProto.FLOAT}
    image = np.full((1, 16, 256, 3), 255, np.uint8)
    assert (session(half).run(None, {"image": image})[0] == 1).all()
