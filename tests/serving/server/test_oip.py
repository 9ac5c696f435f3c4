"""Requests of the protocol, read from bytes: what is wrong is refused, each with its reason."""

import json

import numpy as np
import pytest

from serving.server import long_lists
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


@pytest.fixture(scope="module")
def large():
    """An image whose numbers are read in several pieces."""
    return np.random.default_rng(0).integers(0, 256, (1, 200, 200, 3), np.uint8)


def large_request(large, **changes):
    entry = {"name": "image", "datatype": "UINT8", "shape": list(large.shape), "data": large.ravel().tolist()}
    return {"inputs": [entry | changes]}


@pytest.mark.parametrize("indent", [None, 1])
def test_long_lists_are_read_and_written_in_pieces(large, monkeypatch, indent):
    request = large_request(large) | {"id": 'data":[1', "parameters": {"more": {}}}
    longest: list[int] = []
    text, loads, dumps = json.dumps(request, indent=indent).encode(), json.loads, json.dumps

    def watched_loads(text):
        longest.append(len(text))
        return loads(text)

    def watched_dumps(value, **form):
        longest.append(len(dumps(value)))
        return dumps(value, **form)

    monkeypatch.setattr(json, "loads", watched_loads)
    monkeypatch.setattr(json, "dumps", watched_dumps)
    parsed = parse_request(text, None, ("mask",), 10**6)
    assert np.array_equal(parsed.images, large) and parsed.identifier == 'data":[1'
    assert max(longest) < 70_000 < len(text)
    longest.clear()
    mask = np.concatenate([large] * 2)[..., :2]
    body, _ = build_response("engine", parsed, {"mask": mask})
    assert loads(body)["outputs"] == [
        {"name": "mask", "datatype": "UINT8", "shape": list(mask.shape), "data": mask.ravel().tolist()}
    ]
    assert loads(body)["model_name"] == "engine" and max(longest) < 6 * 2**16 < mask.size * 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text, None),
        (lambda text: text.replace(b" ", b"\n"), None),
        (lambda text: text.replace(b", [", b"[, ", 1), "no tensor"),
        (lambda text: text.replace(b"], [", b" ], [] [", 1), "no tensor"),
        (lambda text: text.replace(b"], [", b", ", 1), "no tensor"),
        (lambda text: text.replace(b"]], [[", b"], [", 1).replace(b"], [", b"]], [[", 1), "no tensor"),
        (lambda text: text.replace(b"[[[[", b"[[["), "no tensor"),
        (lambda text: text.replace(b"[[[[", b"[[[[[").replace(b"]]]]", b"]]]]]"), "no tensor"),
    ],
)
def test_nested_lists_have_to_be_nested_as_the_shape_says(large, change, said):
    text = change(json.dumps(large_request(large, data=large.tolist())).encode())
    if said is None:
        assert np.array_equal(parse_request(text, None, ("mask",), 10**6).images, large)
        return
    with pytest.raises(Refusal) as caught:
        parse_request(text, None, ("mask",), 10**6)
    assert caught.value.status == 400 and said in caught.value.reason


@pytest.mark.parametrize("nested", [False, True])
def test_what_pieces_say_is_what_the_whole_says(monkeypatch, nested):
    """Of texts with a fault anywhere: they are read as `json` reads them, or refused."""
    monkeypatch.setattr(long_lists, "PIECE", 16)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (2, 3, 2, 3))
    request = {"inputs": [SOUND | {"shape": [2, 3, 2, 3], "data": (pixels if nested else pixels.ravel()).tolist()}]}
    sound = json.dumps(request).encode()
    read = 0
    for _ in range(4000):
        text = bytearray(sound)
        for _ in range(generator.integers(1, 3)):
            at = generator.integers(text.index(b"data"), len(text))
            text[at : at + generator.integers(0, 3)] = generator.choice([b"", b"[", b"]", b",", b"7", b" ", b"-", b"{"])
        try:
            images = parse_request(bytes(text), None, ("mask",), 100).images
        except Refusal:
            continue
        expected = np.array(json.loads(text)["inputs"][0]["data"])
        assert np.array_equal(images.ravel(), expected.ravel()) and expected.shape in [(36,), (2, 3, 2, 3)]
        read += 1
    assert read > 50  # a digit or a blank more is no fault


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b"[]," * 10**6 + b"[]]",
        b'{"inputs": [{"data": [' + b'"a",' * 10**6 + b"1]}]}",
        b'{"a":' * 10**6,
        b'{"data": [0.5],' * 10**5,
        json.dumps({"inputs": [SOUND], "parameters": {"more": list(range(10**5))}}).encode(),
    ],
    ids=["lists", "texts", "objects", "keys", "parameters"],
)
def test_much_that_is_no_list_of_whole_numbers_is_refused_unread(text, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail(f"{len(text)} bytes are read at once"))
    with pytest.raises(Refusal, match=r"at most 262144 are read|expected whole numbers"):
        parse_request(text, None, ("mask",), 10**6)


def test_long_lists_of_another_form_are_read_as_well(large):
    elsewhere = {"parameters": {"data": list(range(100_000))}}
    for request in (large_request(large, data=large.tolist()), elsewhere | large_request(large)):
        assert np.array_equal(parse_request(json.dumps(request).encode(), None, ("mask",), 10**6).images, large)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"]}]}", b",]}]}", "not JSON"),
        (b"]}]}", b"}]}", "an end of them"),
        (b"]}]}", b"]}]", "not JSON"),
        (b"]}]}", b",3]}]}", "120001 numbers in data"),
        (b"]}]}", b',"a,b"]}]}', "whole numbers"),
        (b"]}]}", b',"]"]}]}', "whole numbers"),
        (b"]}]}", b',{"a":1,"b":2}]}]}', "whole numbers"),
        (b"]}]}", b",[1]]}]}", "120001 numbers in data"),
        (b"]}]}", b"]]}]}", "no tensor"),
        (b'"data": [', b'"data": [' + b" " * 200_000, "bytes between two commas"),
        (b'"data": [', b'"data": [[],', "not JSON"),
        (b'"data": [', b'"data": [1[', "not JSON"),
        (b"]}]}", b"]1]}]}", "not JSON"),
        (b"]}]}", b" 1]}]}", "not JSON"),
        (b"]}]}", b",01]}]}", "not JSON"),
        (b"]}]}", b",-]}]}", "not JSON"),
        (b"]}]}", b"\x0b]}]}", "not JSON"),
        (b"]}]}", b",null]}]}", "whole numbers"),
        (b"]}]}", b',"3"]}]}', "whole numbers"),
        (b'"data": [', b'"data": [0.5,', "whole numbers"),
        (b'"data": [', b'"data": [,', "not JSON"),
        (b'"inputs": [', b'"inputs": [{},', "expected one tensor"),
    ],
)
def test_long_lists_with_a_fault_are_refused_with_its_reason(large, old, new, said):
    text = json.dumps(large_request(large)).encode().replace(old, new)
    with pytest.raises(Refusal) as caught:
        parse_request(text, None, ("mask",), 10**6)
    assert caught.value.status == 400 and said in caught.value.reason


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
