"""A graph traced at one size is generalised only where no size is baked in."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.graph import tracing
from export.graph.deploy import DeployGraph
from export.graph.tracing import TRACED, generalised, pads_alike, trace

STRIDE = 4
BATCH, ROWS, COLUMNS = TRACED
HEIGHT, WIDTH = ROWS * STRIDE, COLUMNS * STRIDE


def traced(*middle: onnx.NodeProto, sizes: tuple[int, int] = (HEIGHT, WIDTH), **weights: np.ndarray) -> ModelProto:
    """What the exporter gives for a small network at the traced size; `middle` goes from "a" to "b"."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["a"], strides=[STRIDE, STRIDE]),
        *(middle or [helper.make_node("Relu", ["a"], ["b"])]),
        helper.make_node("Resize", ["b", "", "", "sizes"], ["c"], mode="linear"),
        helper.make_node("ArgMax", ["c"], ["d"], axis=1, keepdims=0),
        helper.make_node("Cast", ["d"], ["mask"], to=TensorProto.UINT8),
    ]
    values = {"w": np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32)} | weights
    values["sizes"] = np.array([BATCH, 6, *sizes])
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [BATCH, HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("mask", TensorProto.UINT8, [BATCH, *sizes])],
        [numpy_helper.from_array(array, name) for name, array in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def shape_of(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_a_convolutional_network_is_generalised():
    model = traced()
    general = generalised(model, STRIDE)
    assert general is not None
    assert shape_of(general.graph.input[0]) == ["batch", "height", "width", 3]
    assert shape_of(general.graph.output[0]) == ["batch", "height", "width"]
    assert shape_of(model.graph.input[0]) == [BATCH, HEIGHT, WIDTH, 3], "the traced graph is left as it was"
    session = onnxruntime.InferenceSession(general.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in [(1, 4, 4, 3), (3, 8, 20, 3)]:
        mask = session.run(None, {"image": np.zeros(shape, np.uint8)})[0]
        assert mask.shape == shape[:3]


def broadcast(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


BAKED = {
    "a reshape to the traced size": traced(
        helper.make_node("Reshape", ["a", "flat"], ["f"]),
        helper.make_node("Softmax", ["f"], ["s"], axis=2),
        helper.make_node("Reshape", ["s", "back"], ["b"]),
        flat=np.array([BATCH, 6, ROWS * COLUMNS]),
        back=np.array([BATCH, 6, ROWS, COLUMNS]),
    ),
    "a pad by amounts from the size": traced(
        helper.make_node("Pad", ["a", "pads"], ["b"]), pads=np.array([0, 0, 0, 0, 0, 0, 0, 0])
    ),
    "a positional embedding": traced(
        helper.make_node("Add", ["a", "position"], ["b"]), position=broadcast(1, 6, ROWS, COLUMNS)
    ),
    "a constant per image of the batch": traced(
        helper.make_node("Add", ["a", "slot"], ["b"]), slot=broadcast(BATCH, 6, 1, 1)
    ),
    "a global pooling with its size as kernel": traced(
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[ROWS, COLUMNS]),
        helper.make_node("Mul", ["a", "p"], ["b"]),
    ),
    "an output of fixed size": traced(sizes=(64, 64)),
    "an output at another resolution": traced(sizes=(ROWS, COLUMNS)),
    "an operator that is not known": traced(helper.make_node("Einsum", ["a"], ["b"], equation="nchw->nchw")),
    "an operator of another domain": traced(helper.make_node("Relu", ["a"], ["b"], domain="elsewhere")),
}


@pytest.mark.parametrize("what", BAKED)
def test_a_size_in_the_graph_is_noticed(what):
    assert generalised(BAKED[what], STRIDE) is None


class Attending(nn.Module):
    """A segmentor in miniature that reshapes: its graph traced at one size fits no other."""

    stride = STRIDE
    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([127.0, 120.0, 110.0]))
        self.register_buffer("std", torch.tensor([58.0, 57.0, 56.0]))
        self.encode = nn.Conv2d(3, 8, STRIDE, stride=STRIDE)
        self.norm = nn.BatchNorm2d(8)
        self.classify = nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.encode(images))
        batch, channels, height, width = features.shape
        pixels = features.reshape(batch, channels, height * width)
        attention = (pixels.transpose(1, 2) @ pixels / channels**0.5).softmax(dim=2)
        return self.classify(features + (pixels @ attention.transpose(1, 2)).reshape(features.shape))


class Padding(Attending):
    """Instead of attending it pads, by an amount that may follow from the size, and takes the largest around."""

    def __init__(self, amount) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, images: Tensor) -> Tensor:
        # Above zero, as what HGNetV2 pads: ONNX Runtime takes padding before a MaxPool for minus infinity.
        features = self.norm(self.encode(images)).relu()
        before = self.amount(features.shape[3])
        padded = nn.functional.pad(features, (before, 1 - before, 0, 1))
        return self.classify(nn.functional.max_pool2d(padded, 2, stride=1))


def test_padding_is_generalised_only_where_its_amount_is_the_same_at_every_size():
    torch.manual_seed(0)
    constant, by_size = (DeployGraph(Padding(each).eval()) for each in (lambda _: 0, lambda width: width % 2))
    assert pads_alike(constant) and not pads_alike(by_size)
    model = trace(constant)
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Shape", "Slice"}), "no symbols"
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for shape in [(1, 4, 4, 3), (3, 8, 24, 3), (1, 12, 20, 3)]:
        image = generator.integers(0, 256, shape, np.uint8)
        with torch.inference_mode():
            expected = constant(torch.from_numpy(image)).numpy()
        assert np.mean(session.run(None, {"image": image})[0] != expected) < 0.01


def test_other_networks_are_traced_with_symbols():
    torch.manual_seed(0)
    graph = DeployGraph(Attending().eval())
    model = trace(graph)
    assert shape_of(model.graph.input[0]) == ["batch", "height", "width", 3]
    assert any(node.op_type == "Shape" for node in model.graph.node)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for shape in [(1, 4, 4, 3), (3, 8, 20, 3)]:
        image = generator.integers(0, 256, shape, np.uint8)
        with torch.inference_mode():
            expected = graph(torch.from_numpy(image)).numpy()
        assert np.mean(session.run(None, {"image": image})[0] != expected) < 0.01


def test_every_operator_named_size_free_exists():
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert known >= tracing.SIZE_FREE
