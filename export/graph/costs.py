"""What running an ONNX graph costs at a given input shape, counted from the graph alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner, numpy_helper
from onnx import helper as onnx_helper
from onnx.reference import ReferenceEvaluator

from export.graph.canonical import canonical
from serving.contract.errors import UserError

_FOLDED_ELEMENTS = 4096  # shape arithmetic handles a few numbers; anything larger is a weight or an activation


@dataclass(frozen=True)
class Costs:
    """Costs of one inference.

    Attributes:
        parameters: elements of all initializers that hold learned values.
        multiply_adds: of convolutions, transposed convolutions and matrix products, as the field counts them;
            elementwise operators, pooling and resizing are not counted.
        weight_bytes: bytes of all initializers and constants.
        peak_activation_bytes: the most bytes of inputs, outputs and intermediate tensors alive at once when the nodes
            run in canonical order, each tensor lives from its producer to its last reader and none is overwritten.
        nodes: operators, without constants.
    """

    parameters: int
    multiply_adds: int
    weight_bytes: int
    peak_activation_bytes: int
    nodes: int


@dataclass(frozen=True)
class TensorType:
    """Element type (`TensorProto.DataType`) and concrete shape of a tensor."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory; sub-byte types are packed."""
        bits = 4 if self.dtype in (TensorProto.INT4, TensorProto.UINT4) else 8 * _itemsize(self.dtype)
        return (self.elements * bits + 7) // 8


def costs(model: ModelProto, shape: Sequence[int] | Mapping[str, Sequence[int]]) -> Costs:
    """Count what one inference costs.

    Args:
        model: the graph; weights are not read, only their types.
        shape: concrete shape of the input, or of each input by name, such as `(1, 384, 480, 3)`.

    Raises:
        UserError: a shape does not fit the inputs, or the shape of a counted tensor cannot be inferred.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = canonical(model)
    types = infer_types(model, shape)
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    unknown = [name for node in nodes for name in node.output if name and name not in types]
    if unknown:
        raise UserError(
            f"the shapes of {len(unknown)} tensors, such as {unknown[0]!r}, do not follow from input shape {shape}; "
            "expected a graph of standard operators whose shapes follow from the input's"
        )
    constants = [TensorType(TensorProto.DataType.Value(constant.dtype), constant.shape) for constant in graph.constants]
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    ordered = sorted(nodes, key=lambda node: order[next(name for name in node.output if name)])
    return Costs(
        parameters=sum(
            tensor.elements
            for tensor, constant in zip(constants, graph.constants, strict=True)
            if constant.value is None
        ),
        multiply_adds=sum(_multiply_adds(node, types) for node in nodes),
        weight_bytes=sum(tensor.bytes for tensor in constants),
        peak_activation_bytes=_peak_activation_bytes(ordered, model, types),
        nodes=len(nodes),
    )


def infer_types(
    model: ModelProto, shape: Sequence[int] | Mapping[str, Sequence[int]], *, strict: bool = False
) -> dict[str, TensorType]:
    """Concrete types of every tensor for which they follow from the input shape, initializers included.

    Shape inference alone stops at shapes that the graph computes (Shape, Gather, Concat, Reshape): those few small
    numbers are evaluated, put in as constants, and inference runs again until nothing new comes out.

    Raises:
        UserError: a shape does not fit the inputs.
        onnx.shape_inference.InferenceError: in `strict` mode, where the shapes of an operator's inputs do not fit.
    """
    model = _with_input_shapes(model, shape)
    while True:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
        types = _known_types(inferred)
        if not _fold_shape_arithmetic(model, types):
            return types


def _with_input_shapes(model: ModelProto, shape: Sequence[int] | Mapping[str, Sequence[int]]) -> ModelProto:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    initializers = {tensor.name for tensor in fixed.graph.initializer}
    inputs = [value for value in fixed.graph.input if value.name not in initializers]
    shapes = shape if isinstance(shape, Mapping) else {value.name: shape for value in inputs}
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        wanted = list(shapes.get(value.name, ()))
        fits = len(wanted) == len(dims) and all(
            dim.dim_value in (0, size) for dim, size in zip(dims, wanted, strict=True)
        )
        if not fits:
            declared = [dim.dim_param or dim.dim_value for dim in dims]
            raise UserError(f"input {value.name!r} has shape {declared}; got {wanted}: give a shape that fits")
        for dim, size in zip(dims, wanted, strict=True):
            dim.dim_value = int(size)
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:  # the declared symbols would contradict the concrete shapes
        value.type.tensor_type.ClearField("shape")
    return fixed


def _known_types(model: ModelProto) -> dict[str, TensorType]:
    types = {tensor.name: TensorType(tensor.data_type, tuple(tensor.dims)) for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        known = _known_type(value)
        if known is not None and value.name not in types:
            types[value.name] = known
    return types


def _known_type(value: ValueInfoProto) -> TensorType | None:
    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return None
    return TensorType(tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))


def _fold_shape_arithmetic(model: ModelProto, types: Mapping[str, TensorType]) -> bool:
    """Replace nodes that compute on shapes by their values; True when there was any."""
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if math.prod(tensor.dims) <= _FOLDED_ELEMENTS and not tensor.external_data
    }
    kept: list[NodeProto] = []
    folded = False
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in types:
            attributes = {item.name: onnx_helper.get_attribute_value(item) for item in node.attribute}
            dims = types[node.input[0]].shape[attributes.get("start", 0) : attributes.get("end")]
            results = [np.asarray(dims, np.int64)]
        elif _is_small_arithmetic(node, values, types):
            results = _evaluate(node, values, model)
        else:
            kept.append(node)
            continue
        folded = True
        for name, result in zip(node.output, results, strict=True):
            values[name] = result
            model.graph.initializer.append(numpy_helper.from_array(result, name))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return folded


def _is_small_arithmetic(node: NodeProto, values: Mapping[str, np.ndarray], types: Mapping[str, TensorType]) -> bool:
    if any(name and name not in values for name in node.input) or not all(node.output):
        return False
    if any(attribute.HasField("g") for attribute in node.attribute):
        return False
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return False  # weights, however small; nor has onnx's reference evaluator them at opset 18
    if not node.input and node.op_type != "Constant":
        return False  # random numbers
    return all(name not in types or types[name].elements <= _FOLDED_ELEMENTS for name in node.output)


def _evaluate(node: NodeProto, values: Mapping[str, np.ndarray], model: ModelProto) -> list[np.ndarray]:
    names = [name for name in node.input if name]
    inputs = [
        onnx_helper.make_tensor_value_info(name, onnx_helper.np_dtype_to_tensor_dtype(values[name].dtype), None)
        for name in dict.fromkeys(names)
    ]
    outputs = [onnx_helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output]
    graph = onnx_helper.make_graph([node], "fold", inputs, outputs)
    small = onnx_helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    results = ReferenceEvaluator(small).run(None, {name: values[name] for name in names})
    return [np.asarray(result) for result in results]


def _multiply_adds(node: NodeProto, types: Mapping[str, TensorType]) -> int:
    attributes = {item.name: onnx_helper.get_attribute_value(item) for item in node.attribute}
    shapes = [types[name].shape if name in types else () for name in node.input]
    output = types[node.output[0]].shape
    if node.op_type in ("Conv", "ConvInteger"):
        return math.prod(output) * math.prod(shapes[1][1:])
    if node.op_type == "QLinearConv":
        return math.prod(output) * math.prod(shapes[3][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if node.op_type in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return math.prod(output) * shapes[0][-1]
    if node.op_type == "Gemm":
        return math.prod(output) * shapes[0][0 if attributes.get("transA") else 1]
    return 0


def _peak_activation_bytes(nodes: Sequence[NodeProto], model: ModelProto, types: Mapping[str, TensorType]) -> int:
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
    for value in model.graph.output:
        last_use[value.name] = len(nodes)
    alive = {value.name: types[value.name].bytes for value in model.graph.input if value.name not in constants}
    peak = sum(alive.values())
    for index, node in enumerate(nodes):
        for name in node.output:
            if name:
                alive[name] = types[name].bytes
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use.get(name, -1) > index}
    return peak


def _itemsize(dtype: int) -> int:
    if dtype == TensorProto.STRING:
        return 0  # of unknown length; none is on a path that matters
    return int(np.dtype(onnx_helper.tensor_dtype_to_np_dtype(dtype)).itemsize)
