"""Requests of the protocol, read from bytes: what is wrong is refused, each with its reason."""

import json

import numpy as np
import pytest

from serving.server.config import Refusal
from serving.server.oip import build_response, parse_request

SOUND = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "data": [0, 1, 2, 3, 4, 255]}
BINARY = {"name": "image", "datatype": "UINT8", "shape": [1, 1, 2, 3], "parameters": {"binary_data_size": 6}}


def parse(request, header_length=None, tail=b""):
    text = request if isinstance(request, bytes) else json.dumps(request).encode()
    length = str(len(text)) if header_length is None and tail else header_length
    return parse_request(text + tail, length, ("mask", "confidence"), 100)


def without(values, key):
    return {name: value for name, value in values.items() if name != key}


def test_flat_and_nested_data_are_the_same_tensor():
    flat = parse({"inputs": [SOUND]})
    nested = parse({"inputs": [SOUND | {"data": [[[[0, 1, 2], [3, 4, 255]]]]}]})
    assert np.array_equal(flat.images, nested.images) and flat.images.shape == (1, 1, 2, 3)
    assert flat.outputs == {"mask": False, "confidence": False}


def test_binary_tensors_follow_the_json():
    request = parse({"inputs": [BINARY], "parameters": {"binary_data_output": True}}, tail=bytes(range(6)))
    assert request.images.ravel().tolist() == list(range(6)) and request.outputs["mask"] is True
    body, headers = build_response("engine", request, {each: np.ones((1, 1, 2), np.uint8) for each in request.outputs})
    length = int(headers["Inference-Header-Content-Length"])
    assert body[length:] == b"\1\1\1\1"
    assert [each["parameters"] for each in json.loads(body[:length])["outputs"]] == 2 * [{"binary_data_size": 2}]


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"1" * 10_000, 400, "not JSON"),
        ([], 400, "expected a JSON object"),
        ({}, 400, "expected one tensor, 'image'"),
        ({"inputs": [SOUND, SOUND]}, 400, "expected one tensor"),
        ({"inputs": ["image"]}, 400, "expected one tensor"),
        ({"inputs": [SOUND | {"name": "pixels"}]}, 400, "inputs[0].name"),
        ({"inputs": [SOUND | {"datatype": "FP32"}]}, 400, "expected datatype UINT8"),
        ({"inputs": [SOUND | {"shape": [1, 2, 3]}]}, 400, "expected shape [B,H,W,3]"),
        ({"inputs": [SOUND | {"shape": [1, 0, 2, 3]}]}, 400, "none of them 0"),
        ({"inputs": [SOUND | {"shape": [1, 1, 2.0, 3]}]}, 400, "expected shape"),
        ({"inputs": [SOUND | {"shape": [True, 1, 2, 3]}]}, 400, "expected shape"),
        ({"inputs": [SOUND | {"shape": [10**12, 10**12, 2, 3]}]}, 413, "at most 100 are taken"),
        ({"inputs": [SOUND | {"shape": [1, 10**4000, 10**4000, 3]}]}, 413, "at most 100 are taken"),
        ({"inputs": [SOUND | {"data": [0, 1, 2, 3, 4]}]}, 400, "5 numbers in data"),
        ({"inputs": [SOUND | {"data": [[0, 1, 2], [3, 4, 5]]}]}, 400, "data has shape [2, 3]"),
        ({"inputs": [SOUND | {"data": [[0, 1], [2, 3, 4, 5]]}]}, 400, "no tensor"),
        ({"inputs": [SOUND | {"data": [0, 1, 2, 3, 4, 256]}]}, 400, "UINT8 holds 0..255"),
        ({"inputs": [SOUND | {"data": [0, 1, 2, 3, 4, -1]}]}, 400, "UINT8 holds 0..255"),
        ({"inputs": [SOUND | {"data": [0, 1, 2, 3, 4, 10**30]}]}, 400, "whole numbers"),
        ({"inputs": [SOUND | {"data": [0, 1, 2, 3, 4, 5.5]}]}, 400, "whole numbers"),
        ({"inputs": [SOUND | {"data": ["0", 1, 2, 3, 4, 5]}]}, 400, "whole numbers"),
        ({"inputs": [SOUND | {"data": [True] * 6}]}, 400, "whole numbers"),
        ({"inputs": [without(SOUND, "data")]}, 400, "expected data"),
        ({"inputs": [BINARY]}, 400, "needs the header"),
        ({"inputs": [SOUND | {"parameters": {"shared_memory_region": "r"}}]}, 400, "shared memory is not offered"),
        ({"inputs": [SOUND | {"parameters": 3}]}, 400, "expected an object"),
        ({"inputs": [SOUND], "id": 7}, 400, "id: expected a text"),
        ({"inputs": [SOUND], "outputs": [{"name": "masks"}]}, 400, "did you mean 'mask'?"),
        ({"inputs": [SOUND], "outputs": []}, 400, "expected a list of tensors"),
        ({"inputs": [SOUND], "outputs": [{"name": "mask"}] * 2}, 400, "asked for twice"),
        (
            {"inputs": [SOUND], "outputs": [{"name": "mask", "parameters": {"classification": 1}}]},
            400,
            "classification",
        ),
        ({"inputs": [SOUND], "outputs": [{"name": "mask", "parameters": {"binary_data": 1}}]}, 400, "true or false"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_what_is_wrong_is_refused_with_its_reason(request_, status, said):
    with pytest.raises(Refusal) as caught:
        parse(request_)
    assert caught.value.status == status and said in caught.value.reason
    assert "\n" not in caught.value.reason and len(caught.value.reason) < 400


@pytest.mark.parametrize(
    ("entry", "tail", "length", "said"),
    [
        (BINARY, b"12345", None, "5 bytes behind the JSON"),
        (BINARY, b"1234567", None, "7 bytes behind the JSON"),
        (BINARY | {"parameters": {"binary_data_size": 5}}, b"12345", None, "takes 6 bytes"),
        (BINARY | {"parameters": {"binary_data_size": "6"}}, b"123456", None, "takes 6 bytes"),
        (SOUND, b"123456", None, "has no binary_data_size"),
        (SOUND | {"parameters": {"binary_data_size": 6}}, b"123456", None, "both data and"),
        (BINARY, b"123456", "100000", "Inference-Header-Content-Length: expected in"),
        (BINARY, b"123456", "-1", "Inference-Header-Content-Length: expected in"),
        (BINARY, b"123456", "0", "Inference-Header-Content-Length: expected in"),
        (BINARY, b"123456", "1" * 5000, "Inference-Header-Content-Length: expected in"),
        (BINARY, b"123456", "\u0663", "Inference-Header-Content-Length: expected in"),
    ],
)
def test_binary_tensors_of_other_sizes_are_refused(entry, tail, length, said):
    with pytest.raises(Refusal) as caught:
        parse({"inputs": [entry]}, length, tail)
    assert caught.value.status == 400 and said in caught.value.reason
