"""The smallest part of an engine's graph on which its runtime still computes something else than the file says."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from export.checks.examination.context import CheckContext
from export.checks.locating.location import Location
from export.checks.locating.measuring import neutral_session, relative_error
from export.graph.deploy import INPUT_NAME
from export.graph.inner_logits import expose_tensors
from serving.contract.errors import UserError
from serving.contract.files import atomic_path, write_atomically
from serving.contract.manifest import InputSpec, OutputSpec
from serving.engines.runtimes import RUNTIMES

# A runtime may be off the file's own arithmetic by this, relative to the largest value: in fp32, and where it rounds.
_ALLOWED_FP32 = 1e-3
_ALLOWED_ROUNDED = 0.05
# A part still shows it where it is at least this share as wrong as the whole graph.
_STILL_SHOWN = 0.5

Tensor = NDArray[np.generic]


@dataclass(frozen=True)
class Minimised:
    """A model that shows one wrong result and little else.

    Attributes:
        path: of the ONNX file. The `.npz` beside it holds its input, what the file says (`expected`) and what the
            runtime made of it (`found`).
        nodes: that it has.
        of: nodes that the whole graph has.
        error: of the runtime on it: the largest difference relative to the largest value.
    """

    path: str
    nodes: int
    of: int
    error: float


@dataclass(frozen=True)
class Minimisation:
    """What came of making an engine smaller.

    Attributes:
        minimised: what was written, or None.
        reason: why nothing was, or None.
    """

    minimised: Minimised | None
    reason: str | None = None

    def in_words(self) -> str:
        """One sentence for the terminal."""
        if self.minimised is None:
            return f"not minimised: {self.reason}"
        path, part = Path(self.minimised.path), self.minimised
        return (
            f"{path}: {part.nodes} of {part.of} nodes still show it, off by {part.error:.2e}; "
            f"input and values in {_values_path(path)}"
        )


def minimise(context: CheckContext, location: Location, path: Path) -> Minimisation:
    """Write a small part of the graph that still comes out wrong in the engine's runtime.

    It ends at the tensor that was located; where that only comes out wrong with something behind it, at such a tensor
    too, and then what lies between is left out as far as it comes out wrong without: what read the result of a late
    layer reads the located tensor instead, and what read that of any other layer what this read. The part begins at
    the nearest tensor that everything before it goes through and with which it still comes out wrong. What the file
    says is computed by ONNX Runtime on the CPU with neither kernels for INT8 nor fused operators.

    Args:
        context: the engine.
        location: where it goes wrong first.
        path: of the ONNX file to write.
    """
    if location.located is None or location.batch is None:
        return Minimisation(None, "no tensor was located")
    parts = _Parts(context, context.model, location.located.tensor, location.batch.images)
    allowed = _ALLOWED_FP32 if context.precision == "fp32" else _ALLOWED_ROUNDED
    whole = parts.error(parts.cut(INPUT_NAME, parts.outputs), location.batch.images)
    if whole <= allowed:
        return Minimisation(None, f"the runtime is {whole:.1e} off what the file says: the file itself is wrong")
    least = max(_STILL_SHOWN * whole, allowed)
    ends = parts.least_ends(least)
    parts = parts.shortened(ends, least).thinned(ends, least)
    for begin in parts.beginnings(ends):
        part, values = parts.cut(begin, ends), parts.values(begin)
        if (error := parts.error(part, values)) >= least:
            parts.write(part, values, path)
            of = len(context.model.graph.node)
            return Minimisation(Minimised(path.as_posix(), len(part.graph.node), of, error))
    return Minimisation(None, "no part of the graph comes out as wrong as the whole")


class _Parts:
    """Parts of one graph around one of its tensors.

    Args:
        context: the engine.
        model: its graph, or what was made of it.
        tensor: that comes out wrong.
        images: on which it does.
    """

    def __init__(self, context: CheckContext, model: ModelProto, tensor: str, images: Tensor) -> None:
        self._context, self._model, self._tensor, self._images = context, model, tensor, images
        self._nodes = list(self._model.graph.node)
        self._position = next(index for index, node in enumerate(self._nodes) if tensor in node.output)
        self.outputs = [output.name for output in self._model.graph.output]
        inferred = onnx.shape_inference.infer_shapes(self._model).graph.value_info
        self._kinds = {value.name: value.type.tensor_type for value in inferred}

    def least_ends(self, least: float) -> list[str]:
        """What a part needs as outputs besides the tensor for an error of `least`: nothing, or as little as is found.

        With all of the engine's own outputs it is that wrong. Between nothing and these the search halves the nodes:
        a compilation each, and there are hundreds.
        """
        ends = [[], *(list(node.output) for node in self._nodes[self._position + 1 :]), self.outputs]

        def shows(index: int) -> bool:
            return self.error(self.cut(INPUT_NAME, ends[index]), self._images) >= least

        if shows(0):
            return ends[0]
        low, high = 0, len(ends) - 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if shows(middle) else (middle, high)
        return ends[high]

    def shortened(self, ends: Sequence[str], least: float) -> _Parts:
        """Parts of a graph in which the tensor stands in the place of the latest one behind it that allows it."""
        kept = self._between(INPUT_NAME, list(ends))
        for index in sorted((index for index in kept if index > self._position), reverse=True):
            for name in self._nodes[index].output:
                if name in ends or not self._is_map(name):
                    continue
                shorter = self._without(name, self._tensor)
                if shorter.error(shorter.cut(INPUT_NAME, ends), self._images) >= least:
                    return shorter
        return self

    def thinned(self, ends: Sequence[str], least: float) -> _Parts:
        """Parts of a graph without the layers behind the tensor that make no difference, the last ones first."""
        parts = self
        for index in range(len(self._nodes) - 1, self._position, -1):
            if index not in parts._between(INPUT_NAME, list(ends)):
                continue
            for name in self._nodes[index].output:
                source = parts._source(name)
                if name in ends or source is None:
                    continue
                shorter = parts._without(name, source)
                if shorter.error(shorter.cut(INPUT_NAME, ends), self._images) >= least:
                    parts = shorter
        return parts

    def beginnings(self, ends: Sequence[str]) -> Iterator[str]:
        """Float tensors `[B,C,h,w]` that the outputs come from alone, the last of them first; then the image."""
        for node in reversed(self._nodes[: self._position]):
            for name in node.output:
                if not self._reaches_image(name, [self._tensor, *ends]):
                    values = self.values(name)
                    if values.dtype == np.float32 and values.ndim == 4:
                        yield name
        yield INPUT_NAME

    def values(self, name: str) -> Tensor:
        """A tensor as the file says."""
        return self._images if name == INPUT_NAME else _run(self._model, name, INPUT_NAME, self._images)

    def cut(self, begin: str, ends: Sequence[str]) -> ModelProto:
        """The nodes between a tensor and the wrong one, which is an output, as are `ends`."""
        outputs = list(dict.fromkeys([self._tensor, *ends]))
        kept = self._between(begin, outputs)
        nodes = [node for index, node in enumerate(self._nodes) if index in kept]
        read = {name for node in nodes for name in node.input}
        graph = GraphProto(name=self._model.graph.name, node=nodes)
        graph.initializer.extend(each for each in self._model.graph.initializer if each.name in read)
        if begin == INPUT_NAME:
            graph.input.extend(self._model.graph.input)
        else:
            shape = ["batch", self.values(begin).shape[1], "height", "width"]
            graph.input.append(helper.make_tensor_value_info(begin, TensorProto.FLOAT, shape))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        part = ModelProto(ir_version=self._model.ir_version, graph=graph, opset_import=self._model.opset_import)
        inferred = onnx.shape_inference.infer_shapes(part)
        del inferred.graph.value_info[:]
        return inferred

    def error(self, part: ModelProto, values: Tensor) -> float:
        """How far the runtime is off what the part says; infinite where what comes out is no number.

        A part that the runtime refuses shows nothing: 0. So does one that is no graph, since the tensor that stands in
        another's place has a shape that what reads it cannot take. ONNX Runtime says so, OpenVINO may crash: it is
        asked second.
        """
        try:
            expected = self._expected(part, values)
            return relative_error(self._found(part, values), expected)
        except (UserError, state.Fail, state.InvalidArgument, state.InvalidGraph, state.RuntimeException):
            return 0.0

    def write(self, part: ModelProto, values: Tensor, path: Path) -> None:
        """The part, and beside it its input and both results."""
        write_atomically(path, part.SerializeToString())
        with atomic_path(_values_path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, input=values, expected=self._expected(part, values), found=self._found(part, values)
            )

    def _expected(self, part: ModelProto, values: Tensor) -> Tensor:
        return _run(part, self._tensor, part.graph.input[0].name, values)

    def _found(self, part: ModelProto, values: Tensor) -> Tensor:
        manifest, begin = self._context.manifest, part.graph.input[0].name
        if begin != INPUT_NAME:
            none = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            given = InputSpec(name=begin, layout="NCHW", dtype="float32", mean=none[0], std=none[1], stride=1)
            manifest = dataclasses.replace(manifest, input=given)
        shown = OutputSpec(name=self._tensor, content="logits", layout="NCHW", dtype="float32")
        manifest = dataclasses.replace(manifest, outputs=(shown,))
        with tempfile.TemporaryDirectory(prefix="contrail-check-") as folder:
            path = Path(folder, self._context.engine_path.name)
            write_atomically(path, part.SerializeToString())
            runtime = RUNTIMES.resolve(self._context.runtime)
            with runtime.open(path, manifest, self._context.options, check_hash=False) as opened:
                return opened.infer(values)[self._tensor]

    def _is_map(self, name: str) -> bool:
        """Whether a tensor is float and `[B,C,h,w]`, as one that is located mostly is."""
        kind = self._kinds.get(name)
        return kind is not None and kind.elem_type == TensorProto.FLOAT and len(kind.shape.dim) == 4

    def _source(self, name: str) -> str | None:
        """The map that a map is made of, or None; that of what rounds is what was rounded."""
        if not self._is_map(name):
            return None
        makers = {output: node for node in self._nodes for output in node.output}
        while name in makers:
            name = makers[name].input[0] if makers[name].input else ""
            if self._is_map(name):
                return name
        return None

    def _without(self, name: str, source: str) -> _Parts:
        """Parts of the graph in which what read `name` reads `source`."""
        model = ModelProto()
        model.CopyFrom(self._model)
        for node in model.graph.node:
            node.input[:] = [source if each == name else each for each in node.input]
        return _Parts(self._context, model, self._tensor, self._images)

    def _between(self, begin: str, outputs: Sequence[str]) -> set[int]:
        """Positions of the nodes that the outputs need, from `begin` on."""
        makers = {name: index for index, node in enumerate(self._nodes) for name in node.output}
        pending, kept = [name for name in outputs if name != begin], set[int]()
        while pending:
            index = makers.get(pending.pop())
            if index is not None and index not in kept:
                kept.add(index)
                pending.extend(name for name in self._nodes[index].input if name != begin)
        return kept

    def _reaches_image(self, begin: str, outputs: Sequence[str]) -> bool:
        """Whether something of the outputs comes from the image past `begin`."""
        kept = self._between(begin, outputs)
        return any(INPUT_NAME in self._nodes[index].input for index in kept)


def _run(model: ModelProto, name: str, begin: str, values: Tensor) -> Tensor:
    """A tensor as the graph says, from the values of another."""
    (found,) = neutral_session(expose_tensors(model, [name])).run([name], {begin: values})
    return np.asarray(found)


def _values_path(path: Path) -> Path:
    return path.with_suffix(".npz")
