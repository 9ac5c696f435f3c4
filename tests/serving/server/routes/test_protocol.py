"""The Open Inference Protocol v2, by NVIDIA's unmodified HTTP client."""

import json

import numpy as np
import pytest

http = pytest.importorskip("tritonclient.http", reason="the extra `dev` is not installed")


@pytest.fixture
def client(server):
    with http.InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def request_of(images, *, binary_in=True, binary_out=True, outputs=("mask",)):
    tensor = http.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary_in)
    return [tensor], [http.InferRequestedOutput(name, binary_data=binary_out) for name in outputs]


def test_the_client_finds_the_server_live_and_ready(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("onnx_fp32") and client.is_model_ready("confident", "1")
    assert not client.is_model_ready("another") and not client.is_model_ready("onnx_fp32", "2")


def test_the_client_reads_what_server_and_engines_are(client):
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert [each["name"] for each in client.get_model_repository_index()] == ["onnx_fp32", "confident"]
    described = client.get_model_metadata("confident")
    assert described["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert [each["name"] for each in described["outputs"]] == ["mask", "confidence"]
    assert described["parameters"]["class_names"] == ["red", "green", "blue"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_masks_are_those_of_the_predictor_in_binary_and_in_json(client, predictor, photo, binary_in, binary_out):
    images = np.stack([photo(45, 70, seed) for seed in range(3)])
    inputs, outputs = request_of(images, binary_in=binary_in, binary_out=binary_out)
    masks = client.infer("onnx_fp32", inputs, outputs=outputs).as_numpy("mask")
    assert masks.dtype == np.uint8
    assert np.array_equal(masks, predictor.predict_batch(list(images)))


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_packed_requests_are_unpacked(client, predictor, photo, packing):
    image = photo(64, 64)
    inputs, outputs = request_of(image[None])
    answer = client.infer("onnx_fp32", inputs, outputs=outputs, request_compression_algorithm=packing)
    assert np.array_equal(answer.as_numpy("mask")[0], predictor.predict(image))


def test_all_outputs_come_where_none_is_named_and_the_id_comes_back(client, photo):
    inputs, _ = request_of(photo(32, 32)[None])
    answer = client.infer("confident", inputs, request_id="seventeen")
    assert answer.get_response()["id"] == "seventeen"
    assert {each["name"] for each in answer.get_response()["outputs"]} == {"mask", "confidence"}
    assert answer.as_numpy("confidence").shape == (1, 32, 32)


def test_many_requests_at_once_get_each_its_own_masks(client, server, predictor, photo):
    images = [photo(32 + 8 * (seed % 3), 40, seed) for seed in range(24)]
    with http.InferenceServerClient(server.url.removeprefix("http://"), concurrency=8) as many:
        waiting = []
        for image in images:
            inputs, outputs = request_of(image[None])
            waiting.append(many.async_infer("onnx_fp32", inputs, outputs=outputs))
        masks = [each.get_result().as_numpy("mask")[0] for each in waiting]
    for image, mask in zip(images, masks, strict=True):
        assert np.array_equal(mask, predictor.predict(image))


@pytest.mark.parametrize(
    ("name", "shape", "output", "said"),
    [
        ("another", (1, 32, 32, 3), "mask", "no engine 'another'"),
        ("onnx_fp32", (1, 3, 32, 32), "mask", "expected shape [B,H,W,3]"),
        ("onnx_fp32", (1, 32, 32, 3), "masks", "did you mean 'mask'?"),
        ("onnx_fp32", (1, 32, 32, 3), "confidence", "no output"),
        ("onnx_fp32", (2, 1000, 600, 3), "mask", "at most 1000000 are taken"),
        ("onnx_fp32", (65, 2, 2, 3), "mask", "at most 64"),
    ],
)
def test_the_client_is_told_what_is_wrong(client, name, shape, output, said):
    inputs, outputs = request_of(np.zeros(shape, np.uint8), outputs=[output])
    with pytest.raises(http.InferenceServerException) as caught:
        client.infer(name, inputs, outputs=outputs)
    assert said in str(caught.value)


def test_a_version_that_is_not_there_is_404(server):
    answer = server.post("/v2/models/onnx_fp32/versions/2/infer", json.dumps({}).encode())
    assert answer.status == 404 and "there is 1" in answer.json["error"]
