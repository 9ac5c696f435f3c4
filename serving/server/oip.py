"""The Open Inference Protocol v2 and its binary tensors, as bytes: what a request asks for, and the answer to it.

https://github.com/open-inference/open-inference-protocol and, for binary tensors, Triton's extension
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import did_you_mean
from serving.contract.manifest import Manifest
from serving.server.config import Refusal
from serving.server.long_lists import LongList, load

UInt8 = NDArray[np.uint8]

INPUT = "image"
HEADER_LENGTH = "Inference-Header-Content-Length"
_PIECE = 2**16  # numbers that are written at once
_MOST_DIGITS = 20  # of a length; Python refuses to read thousands of them
EXTENSIONS = ("binary_tensor_data",)


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        images: `[B,H,W,3]` uint8 RGB.
        outputs: name -> whether its answer is to be binary.
        identifier: of the request, to be sent back; None where it has none.
    """

    images: UInt8
    outputs: Mapping[str, bool]
    identifier: str | None


def tensors_of(manifest: Manifest) -> dict[str, list[dict[str, object]]]:
    """`inputs` and `outputs` of an engine, as the protocol describes tensors; -1 is any number.

    The same for every engine, whatever its file takes: the server resizes, pads and normalises as the command does.
    """
    outputs: list[dict[str, object]] = [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]
    if manifest.confidence_output is not None:
        outputs.append({"name": "confidence", "datatype": "UINT8", "shape": [-1, -1, -1]})
    if manifest.overlapping:
        outputs.append({"name": "layers", "datatype": "UINT8", "shape": [-1, -1, -1, manifest.num_classes - 1]})
    return {"inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}], "outputs": outputs}


def parse_request(body: bytes, header_length: str | None, known: Sequence[str], max_pixels: int) -> InferRequest:
    """Read the body of an `infer` request.

    Args:
        body: JSON, and behind it the binary tensors.
        header_length: bytes of the JSON, as the header `HEADER_LENGTH` says; None where all of it is.
        known: names of the engine's outputs.
        max_pixels: of all images together.

    Raises:
        Refusal: 400 for what is wrong with it, 413 for too many pixels.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MOST_DIGITS
        length = int(header_length) if digits else 0
        if not 0 < length <= len(body):
            raise Refusal(400, f"{HEADER_LENGTH}: expected in 1..{len(body)} (the body), got {header_length[:40]!r}")
    try:
        request = load(body[:length])
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"not JSON in its first {length} bytes: {error}") from error
    if not isinstance(request, dict):
        raise Refusal(400, f"expected a JSON object, got {type(request).__name__}")
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise Refusal(400, f"id: expected a text, got {_brief(identifier)}")
    binary = header_length is not None
    images = _image(request, memoryview(body)[length:] if binary else None, max_pixels)
    return InferRequest(images, _outputs(request, known), identifier)


def build_response(name: str, request: InferRequest, outputs: Mapping[str, UInt8]) -> tuple[bytes, dict[str, str]]:
    """The answer to `request`.

    Args:
        name: of the engine.
        request: what was asked.
        outputs: at least those that were asked for.

    Returns:
        The body, and headers that belong to it.
    """
    described, parts = [], []
    for output, binary in request.outputs.items():
        values = np.ascontiguousarray(outputs[output])
        entry: dict[str, object] = {"name": output, "datatype": "UINT8", "shape": list(values.shape)}
        if binary:
            entry["parameters"] = {"binary_data_size": values.nbytes}
            parts.append(values.tobytes())
        else:
            described.append(f'{_json(entry)[:-1]},"data":[{_numbers(values)}]}}')
            continue
        described.append(_json(entry))
    answer = {"model_name": name, "model_version": "1"}
    if request.identifier is not None:
        answer["id"] = request.identifier
    text = f'{_json(answer)[:-1]},"outputs":[{",".join(described)}]}}'.encode()
    if not parts:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *parts]), headers


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _numbers(values: UInt8) -> str:
    """A list of them in JSON, without its brackets; in pieces, between which Python runs other threads."""
    flat = values.ravel()
    pieces = range(0, flat.size, _PIECE)
    return ",".join(_json(flat[start : start + _PIECE].tolist())[1:-1] for start in pieces)


def _image(request: Mapping[str, Any], binary: memoryview | None, max_pixels: int) -> UInt8:
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Refusal(400, f"inputs: expected one tensor, {INPUT!r}, got {_brief(inputs)}")
    entry = inputs[0]
    if entry.get("name") != INPUT:
        raise Refusal(400, f"inputs[0].name: expected {INPUT!r}, got {_brief(entry.get('name'))}")
    if entry.get("datatype") != "UINT8":
        raise Refusal(400, f"{INPUT}: expected datatype UINT8, got {_brief(entry.get('datatype'))}")
    shape: Any = entry.get("shape")
    sound = isinstance(shape, list) and len(shape) == 4 and all(type(side) is int and side > 0 for side in shape)
    if not sound or shape[3] != 3:
        raise Refusal(400, f"{INPUT}: expected shape [B,H,W,3], none of them 0, got {_brief(shape)}")
    pixels = shape[0] * shape[1] * shape[2]
    if pixels > max_pixels:
        raise Refusal(413, f"{INPUT}: too many pixels in shape {_brief(shape)}; at most {max_pixels} are taken")
    parameters = _mapping(entry.get("parameters"), f"{INPUT}.parameters")
    if any(name.startswith("shared_memory") for name in parameters):
        raise Refusal(400, f"{INPUT}: shared memory is not offered; send the tensor in the body")
    size = parameters.get("binary_data_size")
    if size is None:
        if binary is not None and len(binary) > 0:
            raise Refusal(400, f"{len(binary)} bytes behind the JSON, and {INPUT} has no binary_data_size")
        return _from_json(entry.get("data"), shape)
    if "data" in entry:
        raise Refusal(400, f"{INPUT}: both data and binary_data_size; expected one of them")
    if binary is None:
        raise Refusal(400, f"{INPUT}: binary_data_size needs the header {HEADER_LENGTH}")
    if type(size) is not int or size != 3 * pixels:
        raise Refusal(400, f"{INPUT}: shape {shape} takes {3 * pixels} bytes, binary_data_size is {_brief(size)}")
    if len(binary) != size:
        raise Refusal(400, f"{INPUT}: {len(binary)} bytes behind the JSON, binary_data_size is {size}")
    return np.frombuffer(binary, np.uint8).reshape(shape)


def _from_json(data: object, shape: Sequence[int]) -> UInt8:
    if not isinstance(data, list | LongList):
        raise Refusal(400, f"{INPUT}: expected data, a list of numbers, or binary_data_size; got {_brief(data)}")
    try:
        values = data.values if isinstance(data, LongList) else np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise Refusal(400, f"{INPUT}: data is no tensor: {error}") from error
    if values.dtype.kind not in "iu":
        raise Refusal(400, f"{INPUT}: expected whole numbers in data, got {values.dtype}")
    if values.size != shape[0] * shape[1] * shape[2] * 3:
        raise Refusal(400, f"{INPUT}: {values.size} numbers in data, shape {list(shape)} takes another number of them")
    if isinstance(data, LongList) and not data.fits(shape):
        raise Refusal(400, f"{INPUT}: data is no tensor; expected a flat list, or lists nested as {list(shape)}")
    if values.ndim != 1 and values.shape != tuple(shape):
        raise Refusal(400, f"{INPUT}: data has shape {list(values.shape)}; expected a flat list or {list(shape)}")
    if values.min() < 0 or values.max() > 255:
        raise Refusal(400, f"{INPUT}: data from {values.min()} to {values.max()}; UINT8 holds 0..255")
    return values.astype(np.uint8).reshape(shape)


def _outputs(request: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    parameters = _mapping(request.get("parameters"), "parameters")
    default = _flag(parameters.get("binary_data_output", False), "parameters.binary_data_output")
    wanted = request.get("outputs")
    if wanted is None:
        return dict.fromkeys(known, default)
    if not isinstance(wanted, list) or not wanted or not all(isinstance(each, dict) for each in wanted):
        raise Refusal(400, f"outputs: expected a list of tensors, or none of it for all, got {_brief(wanted)}")
    outputs: dict[str, bool] = {}
    for each in wanted:
        name = each.get("name")
        if not isinstance(name, str) or name not in known:
            raise Refusal(400, f"outputs: no output {_brief(name)}{did_you_mean(str(name)[:60], known)}")
        if name in outputs:
            raise Refusal(400, f"outputs: {name!r} is asked for twice")
        own = _mapping(each.get("parameters"), f"{name}.parameters")
        if "classification" in own or any(key.startswith("shared_memory") for key in own):
            raise Refusal(400, f"{name}: neither classification nor shared memory is offered")
        outputs[name] = _flag(own.get("binary_data", default), f"{name}.parameters.binary_data")
    return outputs


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, f"{name}: expected an object, got {_brief(value)}")
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise Refusal(400, f"{name}: expected true or false, got {_brief(value)}")
    return value


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
