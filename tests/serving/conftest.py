"""Small engines with Contrail's contract and with others, built from ONNX operators."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.contract.manifest import METADATA_KEY, Manifest, write_sidecar

CLASS_NAMES = ("red", "green", "blue")
PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
DTYPES |= {"int64": TensorProto.INT64}


class Graph:
    """Collects nodes and constants of one straight graph."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"/{kind}/{output}", **attributes))
        return output

    def model(self, inputs, outputs, metadata=None):
        graph = helper.make_graph(self.nodes, "main", inputs, outputs, self.constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="tests"
        )
        helper.set_model_props(model, metadata or {})
        onnx.checker.check_model(model)
        return model


def network_model(metadata=None, confidence=False):
    """uint8 [B,H,W,3] -> mask uint8 [B,H,W]: normalise, transpose, two convolutions, upsample, argmax of 3."""
    rng = np.random.default_rng(0)
    g = Graph()
    x = g.add("Cast", ["image"], "float", to=TensorProto.FLOAT)
    x = g.add("Sub", [x, g.constant("mean", np.array(MEAN, np.float32))], "centred")
    x = g.add("Div", [x, g.constant("std", np.array(STD, np.float32))], "normalised")
    x = g.add("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    weights = g.constant("w1", rng.normal(0, 0.3, (8, 3, 4, 4)).astype(np.float32))
    x = g.add("Conv", [x, weights], "features", strides=[4, 4], kernel_shape=[4, 4])
    x = g.add("Relu", [x], "active")
    weights = g.constant("w2", rng.normal(0, 0.3, (3, 8, 1, 1)).astype(np.float32))
    x = g.add("Conv", [x, weights], "logits_low", kernel_shape=[1, 1])
    scales = g.constant("scales", np.array([1, 1, 4, 4], np.float32))
    logits = g.add("Resize", [x, "", scales], "logits", mode="linear", coordinate_transformation_mode="half_pixel")
    x = g.add("ArgMax", [logits], "index", axis=1, keepdims=0)
    g.add("Cast", [x], "mask", to=TensorProto.UINT8)
    outputs = [helper.make_tensor_value_info("mask", TensorProto.UINT8, ["B", "H", "W"])]
    if confidence:
        x = g.add("Softmax", [logits], "probabilities", axis=1)
        x = g.add("ReduceMax", [x, g.constant("axes", np.array([1]))], "highest", keepdims=0)
        x = g.add("Mul", [x, g.constant("full", np.float32(255))], "scaled")
        g.add("Cast", [x], "confidence", to=TensorProto.UINT8)
        outputs.append(helper.make_tensor_value_info("confidence", TensorProto.UINT8, ["B", "H", "W"]))
    return g.model([helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])], outputs, metadata)


def quantised_model():
    """uint8 [B,H,W,3] -> mask uint8 [B,H,W]: one convolution between Q/DQ pairs, and the argmax of 3."""
    g = Graph()
    scale, zero = g.constant("scale", np.float32(0.02)), g.constant("zero", np.uint8(128))
    x = g.add("Cast", ["image"], "float", to=TensorProto.FLOAT)
    x = g.add("Mul", [x, g.constant("small", np.float32(1 / 255))], "scaled")
    x = g.add("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    x = g.add("QuantizeLinear", [x, scale, zero], "q_in")
    x = g.add("DequantizeLinear", [x, scale, zero], "dq_in")
    weights = g.constant("weights", np.random.default_rng(0).integers(-127, 127, (3, 3, 1, 1)).astype(np.int8))
    weights = g.add(
        "DequantizeLinear", [weights, g.constant("ws", np.float32(0.01)), g.constant("wz", np.int8(0))], "dq_w"
    )
    x = g.add("Conv", [x, weights], "features", kernel_shape=[1, 1])
    x = g.add("QuantizeLinear", [x, scale, zero], "q_out")
    x = g.add("DequantizeLinear", [x, scale, zero], "dq_out")
    x = g.add("ArgMax", [x], "index", axis=1, keepdims=0)
    g.add("Cast", [x], "mask", to=TensorProto.UINT8)
    return g.model(
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("mask", TensorProto.UINT8, ["B", "H", "W"])],
    )


def color_model(
    *,
    layout="NCHW",
    dtype="float32",
    color="RGB",
    normalised=True,
    content="logits",
    output_layout="NCHW",
    reduce=1,
    size=("H", "W"),
    batch="B",
):
    """A model from elsewhere whose answer is known: the strongest of red, green and blue (sigmoid: red > 127).

    It undoes whatever normalisation its io asks for, so that a wrong description gives wrong masks.
    """
    g = Graph()
    x = g.add("Cast", ["pixels"], "float", to=TensorProto.FLOAT)
    if layout == "NHWC":
        x = g.add("Transpose", [x], "nchw", perm=[0, 3, 1, 2])
    order = [0, 1, 2] if color == "RGB" else [2, 1, 0]
    if normalised:
        std = np.array(STD, np.float32)[order].reshape(1, 3, 1, 1)
        mean = np.array(MEAN, np.float32)[order].reshape(1, 3, 1, 1)
        x = g.add("Mul", [x, g.constant("std", std)], "scaled")
        x = g.add("Add", [x, g.constant("mean", mean)], "pixels255")
    x = g.add("Gather", [x, g.constant("order", np.array(order))], "rgb", axis=1)
    if reduce > 1:
        x = g.add("AveragePool", [x], "low", kernel_shape=[reduce, reduce], strides=[reduce, reduce])
    if content == "sigmoid":
        x = g.add("Gather", [x, g.constant("red", np.array([0]))], "first", axis=1)
        x = g.add("Sub", [x, g.constant("half", np.float32(127.5))], "signed")
        x = g.add("Sigmoid", [x], "scores")
    elif content == "sigmoids":
        x = g.add("Sub", [x, g.constant("half", np.float32(127.5))], "signed")
        x = g.add("Mul", [x, g.constant("scale", np.float32(0.05))], "moderate")  # else it saturates at 1, for many
        x = g.add("Sigmoid", [x], "scores")
    elif content == "probabilities":
        x = g.add("Softmax", [x], "scores", axis=1)
    elif content == "mask":
        x = g.add("ArgMax", [x], "scores", axis=1, keepdims=int(output_layout != "NHW"))
    channels = {"sigmoid": 1, "mask": 1}.get(content, 3)
    if output_layout == "NHWC":
        x = g.add("Transpose", [x], "last", perm=[0, 2, 3, 1])
    g.add("Identity", [x], "result")
    h, w = size
    shape = [batch, 3, h, w] if layout == "NCHW" else [batch, h, w, 3]
    low = [side // reduce if isinstance(side, int) else f"{side}/{reduce}" for side in size]
    out = {"NCHW": [batch, channels, *low], "NHWC": [batch, *low, channels], "NHW": [batch, *low]}[output_layout]
    return g.model(
        [helper.make_tensor_value_info("pixels", DTYPES[dtype], shape)],
        [helper.make_tensor_value_info("result", DTYPES["int64" if content == "mask" else "float32"], out)],
    )


MANIFEST = Manifest(
    name="onnx_fp32",
    kind="onnx",
    precision="fp32",
    class_names=CLASS_NAMES,
    palette=PALETTE,
    provenance={"method": "cross_entropy", "seed": 0},
)


@pytest.fixture
def manifest():
    return MANIFEST


@pytest.fixture
def build_engine():
    """Save a model with a manifest inside and beside it, as export does; returns the engine's path."""

    def build(folder, model=None, manifest=MANIFEST):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        onnx.save(model or network_model({METADATA_KEY: manifest.to_json()}), path)
        write_sidecar(manifest, path)
        return path

    return build


@pytest.fixture
def engine(tmp_path, build_engine):
    return build_engine(tmp_path / "engine")


@pytest.fixture
def photo():
    """Builds `[H,W,3]` noise with blocks of colour, so that masks have regions."""

    def build(height, width, seed=0):
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
        return np.clip(blocks + rng.integers(-20, 21, blocks.shape), 0, 255).astype(np.uint8)

    return build


@pytest.fixture
def models():
    """The builders of models, for tests that need a variant."""
    return {"network": network_model, "color": color_model, "quantised": quantised_model}
