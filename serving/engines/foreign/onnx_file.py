"""What an ONNX file holds, read from its bytes without building anything: io, metadata, weights kept elsewhere.

Serving ships without the `onnx` package, and a file from elsewhere should be looked at before a runtime deserialises
it. An ONNX file is one protobuf message; the field numbers below are those of onnx.proto (ONNX 1.x, IR versions 3 and
up). Weights are skipped by their length, so a large file is read as fast as a small one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serving.contract.errors import UserError

# onnx.proto: message -> {field number: message in that field}; only what can hold a tensor.
_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "function": {7: "node", 11: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL

# Operators that leave the meaning of values as it is.
_MOVERS = frozenset({"Cast", "Identity", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Upsample"})

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string"}
_DTYPES |= {9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16"}


class _MalformedError(Exception):
    """The bytes are no protobuf message of this shape."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the graph.

    Attributes:
        name: tensor name.
        dtype: element type, as numpy names it.
        shape: one entry per axis: a number where it is fixed, else its name (empty when it has none). None:
            unknown rank.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclass(frozen=True)
class OnnxFile:
    """What was read.

    Attributes:
        ir_version, producer, opset: as the file says; opset of the default domain.
        metadata: `metadata_props`.
        inputs, outputs: of the main graph, without initializers.
        external: names of the files that hold weights outside this one ("?" where a tensor names none).
    """

    ir_version: int
    producer: str
    opset: int
    metadata: dict[str, str]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    external: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Read what an ONNX file says of itself.

    Raises:
        UserError: missing, unreadable, truncated, or no ONNX file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _Reader(buffer).read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (_MalformedError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise UserError(
            f"{path}: truncated, corrupt or no ONNX file ({error}); copy it again or rebuild it with `dvc repro`"
        ) from error


def require_single_file(path: Path) -> OnnxFile:
    """Refuse an ONNX file whose weights lie in other files.

    Those paths may point anywhere on this machine, and no hash of the engine file covers what they hold.

    Raises:
        UserError: weights outside the file; or what `read_onnx` raises.
    """
    content = read_onnx(path)
    if content.external:
        shown = ", ".join(repr(name) for name in content.external[:3]) + (" ..." if len(content.external) > 3 else "")
        raise UserError(
            f"{path}: keeps weights in other files ({shown}); only single-file models are opened, since the manifest's "
            "hash covers one file: save it with onnx.save(model, path, save_as_external_data=False)"
        )
    return content


def output_operators(path: Path) -> dict[str, str]:
    """The operator that makes each output of the main graph, looking through those that only move values or cast them.

    Raises:
        UserError: as `read_onnx`.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            return _Reader(buffer).output_operators()
    except (OSError, _MalformedError, ValueError) as error:
        raise UserError(f"{path}: truncated, corrupt or no ONNX file ({error})") from error


@dataclass
class _Reader:
    buffer: mmap.mmap
    external: dict[str, None] = field(default_factory=dict)  # ordered, each once

    def read(self) -> OnnxFile:
        """Read the whole model."""
        end = len(self.buffer)
        ir_version, producer, opset, graph = 0, "", 0, None
        metadata: dict[str, str] = {}
        for number, wire, start, stop in self.fields(0, end):
            if wire == _VARINT and number == 1:
                ir_version = start
            elif wire != _BYTES:
                continue
            elif number == 2:
                producer = self.text(start, stop)
            elif number == 7:
                graph = (start, stop)
            elif number == 8:
                domain, version = self.opset(start, stop)
                opset = version if domain in ("", "ai.onnx") else opset
            elif number == 14:
                texts = {key: self.text(a, b) for key, w, a, b in self.fields(start, stop) if w == _BYTES}
                metadata[texts.get(1, "")] = texts.get(2, "")
        if graph is None or ir_version == 0:
            raise _MalformedError("no graph in it")
        self.find_external(end)
        inputs, outputs = self.graph_io(*graph)
        return OnnxFile(ir_version, producer, opset, metadata, inputs, outputs, tuple(self.external))

    def output_operators(self) -> dict[str, str]:
        """Output of the main graph -> operator."""
        makers: dict[str, tuple[str, str]] = {}  # tensor -> (operator, its first input)
        outputs: list[str] = []
        for graph in self.children(0, len(self.buffer), 7):
            for number, wire, start, stop in self.fields(*graph):
                if (number, wire) == (1, _BYTES):
                    operator, inputs, made = self.node(start, stop)
                    makers |= dict.fromkeys(made, (operator, inputs[0] if inputs else ""))
                elif (number, wire) == (12, _BYTES):
                    outputs.append(self.tensor_info(start, stop).name)
        found = {}
        for name in outputs:
            operator, source = makers.get(name, ("", ""))
            for _ in makers:
                if operator not in _MOVERS or source not in makers:
                    break
                operator, source = makers[source]
            found[name] = operator
        return found

    def node(self, start: int, stop: int) -> tuple[str, list[str], list[str]]:
        """A NodeProto: input = 1, output = 2, op_type = 4; returns (op_type, inputs, outputs)."""
        texts: dict[int, list[str]] = {1: [], 2: [], 4: [""]}
        for number, wire, first, last in self.fields(start, stop):
            if number in texts and wire == _BYTES:
                texts[number].append(self.text(first, last))
        return texts[4][-1], texts[1], texts[2]

    def find_external(self, end: int) -> None:
        """Note the files that any tensor anywhere in the model keeps its values in."""
        pending = [("model", 0, end)]
        while pending:  # a stack of our own: nesting is as deep as the file says
            message, start, stop = pending.pop()
            if message == "tensor":
                self.tensor(start, stop)
                continue
            children = _CHILDREN[message]
            pending += [
                (children[number], first, last)
                for number, wire, first, last in self.fields(start, stop)
                if wire == _BYTES and number in children
            ]

    def tensor(self, start: int, stop: int) -> None:
        """A TensorProto: external_data = 13 (key = 1, value = 2), data_location = 14."""
        external, location = False, "?"
        for number, wire, first, last in self.fields(start, stop):
            if (number, wire) == (14, _VARINT):
                external = external or first == _EXTERNAL
            elif (number, wire) == (13, _BYTES):
                external = True
                texts = {key: self.text(a, b) for key, w, a, b in self.fields(first, last) if w == _BYTES}
                location = texts.get(2, "?") if texts.get(1) == "location" else location
        if external:
            self.external.setdefault(location)

    def graph_io(self, start: int, stop: int) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs (without initializers, which old files list among them) and outputs."""
        inputs: list[TensorInfo] = []
        outputs: list[TensorInfo] = []
        initializers: set[str] = set()
        for number, wire, first, last in self.fields(start, stop):
            if wire != _BYTES:
                continue
            if number == 5:
                initializers.update(
                    self.text(a, b) for key, w, a, b in self.fields(first, last) if (key, w) == (8, _BYTES)
                )
            elif number == 11:
                inputs.append(self.tensor_info(first, last))
            elif number == 12:
                outputs.append(self.tensor_info(first, last))
        return tuple(info for info in inputs if info.name not in initializers), tuple(outputs)

    def tensor_info(self, start: int, stop: int) -> TensorInfo:
        """A ValueInfoProto: name = 1, type = 2 -> tensor_type = 1 -> elem_type = 1, shape = 2 -> dim = 1."""
        name, dtype, shape = "", "unknown", None
        for number, wire, first, last in self.fields(start, stop):
            if (number, wire) == (1, _BYTES):
                name = self.text(first, last)
            elif (number, wire) == (2, _BYTES):
                for tensor in self.children(first, last, 1):
                    for key, kind, a, b in self.fields(*tensor):
                        if (key, kind) == (1, _VARINT):
                            dtype = _DTYPES.get(a, f"type {a}")
                        elif (key, kind) == (2, _BYTES):
                            shape = tuple(self.dimension(*each) for each in self.children(a, b, 1))
        return TensorInfo(name, dtype, shape)

    def dimension(self, start: int, stop: int) -> int | str:
        """One axis: dim_value = 1 or dim_param = 2."""
        for number, wire, first, last in self.fields(start, stop):
            if (number, wire) == (1, _VARINT):
                return first
            if (number, wire) == (2, _BYTES):
                return self.text(first, last)
        return ""

    def opset(self, start: int, stop: int) -> tuple[str, int]:
        """An OperatorSetIdProto: domain = 1, version = 2."""
        domain, version = "", 0
        for number, wire, first, last in self.fields(start, stop):
            if (number, wire) == (1, _BYTES):
                domain = self.text(first, last)
            elif (number, wire) == (2, _VARINT):
                version = first
        return domain, version

    def children(self, start: int, stop: int, wanted: int) -> Iterator[tuple[int, int]]:
        """Where the messages in field `wanted` lie."""
        for number, wire, first, last in self.fields(start, stop):
            if (number, wire) == (wanted, _BYTES):
                yield first, last

    def text(self, start: int, stop: int) -> str:
        """UTF-8 text; raises UnicodeDecodeError (a ValueError)."""
        return self.buffer[start:stop].decode("utf-8")

    def fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(field number, wire type, first, last) of a message; of a varint `first` is its value."""
        buffer, position = self.buffer, start
        while position < stop:
            key, position = self.varint(position, stop)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, position = self.varint(position, stop)
                yield number, wire, value, value
                continue
            if wire == _BYTES:
                length, position = self.varint(position, stop)
            elif wire in (_FIXED64, _FIXED32):
                length = 8 if wire == _FIXED64 else 4
            else:
                raise _MalformedError(f"wire type {wire} at byte {position}")
            if number == 0 or position + length > stop:
                raise _MalformedError(f"a field at byte {position} of {len(buffer)} runs past its end")
            yield number, wire, position, position + length
            position += length

    def varint(self, position: int, stop: int) -> tuple[int, int]:
        """A base-128 number and where it ends."""
        value = shift = 0
        while position < stop and shift < 64:
            byte = self.buffer[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise _MalformedError(f"a number that does not end at byte {position}")
