"""From a graph in single precision to one in INT8 with explicit QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from export.artifacts.onnx_int8.calibration import CalibrationImages
from export.artifacts.onnx_int8.options import OnnxInt8Options
from export.graph.deploy import INPUT_NAME, LOGITS_NAME
from export.graph.passes import anonymise, run_passes

UInt8 = NDArray[np.uint8]

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # with weights: where nearly all the time goes
# What follows a layer in INT8 computes in INT8 as well, so that nothing is converted back and forth.
BETWEEN = ("Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Resize")
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Quantiser:
    """Quantises one graph, as a whole or in part, with ranges measured once. Use as a context manager.

    Args:
        model: the graph in single precision; left as it is.
        images: what the ranges of the activations come from.
        options: scheme and method.
    """

    def __init__(self, model: ModelProto, images: CalibrationImages, options: OnnxInt8Options) -> None:
        self._options = options
        self._images = images
        self._folder = tempfile.TemporaryDirectory(prefix="contrail-int8-")
        self._ranges = Path(self._folder.name) / "ranges.json"
        source = ModelProto()
        source.CopyFrom(model)
        # What quantize_static's own preparation would do (fold batch norms, infer shapes) has been done before.
        source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        # As a file: quantize_static moves the weights of a model in memory to a file of its own, and deletes that.
        self._source = Path(self._folder.name) / "source.onnx"
        onnx.save(source, self._source)
        self._groups = _groups(model.graph.node, {tensor.name for tensor in model.graph.initializer})
        self.layers = list(self._groups)

    def __enter__(self) -> Quantiser:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def quantise(self, keep: Collection[str] = ()) -> ModelProto:
        """Everything in INT8 but the layers named in `keep` and what follows them; one layer at least is not."""
        return self.quantise_only([layer for layer in self.layers if layer not in keep])

    def quantise_only(self, layers: Collection[str]) -> ModelProto:
        """Everything in single precision but these layers, one or more, and what follows them."""
        if not layers:
            raise ValueError("no layer to quantise")  # an empty list of nodes means all of them to quantize_static
        return self._run([name for layer in layers for name in self._groups[layer]])

    def _run(self, names: Sequence[str]) -> ModelProto:
        options = self._options
        symmetric = options.scheme == "symmetric"
        activations = QuantType.QInt8 if symmetric else QuantType.QUInt8
        path = Path(self._folder.name) / "quantised.onnx"
        with _quiet():
            quantize_static(
                str(self._source),
                str(path),
                _Reader(self._images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, *BETWEEN],
                nodes_to_quantize=list(names),
                per_channel=options.per_channel,
                reduce_range=options.reduce_range,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                calibrate_method=_METHODS[options.calibration],
                calibration_cache_path=str(self._ranges),
                extra_options={
                    "ActivationSymmetric": symmetric,
                    "WeightSymmetric": True,
                    # TensorRT takes biases in floating point only; ONNX Runtime's kernels want them in int32.
                    "QuantizeBias": not symmetric,
                    "CalibTensorRangeSymmetric": symmetric,
                    "CalibPercentile": options.percentile,
                    "CalibStridedMinMax": 1,  # one image at a time: memory does not grow with their number
                },
            )
        # The quantiser declares its own operator set always.
        model = run_passes(onnx.load(path), RemoveUnusedNodesPass(), RemoveUnusedOpsetsPass())
        anonymise(model)
        return model


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration images to ONNX Runtime, one range of them at a time."""

    def __init__(self, images: CalibrationImages) -> None:
        self._images = images
        self._batches: Iterator[UInt8] = iter(())

    def __len__(self) -> int:
        return len(self._images.calibration)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._batches = self._images.batches(self._images.calibration[start_index:end_index])

    def get_next(self) -> dict[str, UInt8] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A session that computes what the QuantizeLinear pairs say in single precision: the same on every processor.

    Kernels for INT8 differ from it by rounding at most, and differ among processors.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _groups(nodes: Sequence[NodeProto], constants: Collection[str]) -> dict[str, list[str]]:
    """Layer -> its own name and the names of what follows it, up to the next layers.

    A tensor is quantised as soon as one node that makes or reads it is. So a layer stays in floating point together
    with the activations, sums and resizings behind it: left in INT8, they would round its result all the same, and a
    graph with every layer in floating point would still lose accuracy. What follows several layers goes with the last.

    Sums and products with a constant stay as they are: they fuse in floating point, and TensorRT takes no quantised
    scalar (DeepLabV3 spreads its pooled features with one, OCR scales its attention). Products of two activations are
    no layers and stay as well, those of attention: before a softmax their rounding is exponentiated, and the sums of
    linear attention have a range that one scale does not cover. So do layer normalisation, softmax and the inside of a
    GELU.
    """
    tail = _tail(nodes) | _gelu_products(nodes)
    layers = [node.name for node in nodes if is_layer(node, constants) and node.name not in tail]
    positions = {name: position for position, name in enumerate(layers)}
    groups = {name: [name] for name in layers}
    latest: dict[str, int] = {}  # tensor -> position of the last layer that it depends on
    for node in nodes:
        if node.name in positions:
            position = positions[node.name]
        else:
            position = max((latest[name] for name in node.input if name in latest), default=0)
            scaled = node.op_type in ("Add", "Mul") and any(name in constants for name in node.input)
            if node.op_type in BETWEEN and node.name not in tail and not scaled:
                groups[layers[position]].append(node.name)
        latest.update(dict.fromkeys(node.output, position))
    return groups


def is_layer(node: NodeProto, constants: Collection[str]) -> bool:
    """Whether a node is one of `LAYERS` with a weight."""
    return node.op_type in LAYERS and any(name in constants for name in node.input[:2])


def _gelu_products(nodes: Sequence[NodeProto]) -> set[str]:
    """Nodes that multiply x by 1 + erf(x / sqrt(2)): in floating point they fuse with the rest of the GELU."""
    makers = {name: node for node in nodes for name in node.output}

    def made_by(name: str, operator: str) -> Sequence[str]:
        node = makers.get(name)
        return node.input if node is not None and node.op_type == operator else ()

    return {
        node.name
        for node in nodes
        if node.op_type == "Mul" and any(made_by(inner, "Erf") for name in node.input for inner in made_by(name, "Add"))
    }


def _tail(nodes: Sequence[NodeProto]) -> set[str]:
    """Nodes after the last layer: upsampled in INT8, logits would have ties, and argmax settles each by class index."""
    producers = {name: node for node in nodes for name in node.output}
    tail = set()
    pending = [LOGITS_NAME]
    while pending:
        node = producers.get(pending.pop())
        if node is not None and node.op_type not in LAYERS and node.name not in tail:
            tail.add(node.name)
            pending.extend(node.input)
    beyond = {LOGITS_NAME}
    for node in nodes:
        if beyond & set(node.input):
            tail.add(node.name)
            beyond.update(node.output)
    return tail


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the quantiser prints and its advice on the root logger, such as for nodes it was told to leave."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
