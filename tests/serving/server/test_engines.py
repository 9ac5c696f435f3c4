"""A served engine: which sizes it takes, and what is answered where it fails."""

import asyncio
import dataclasses

import numpy as np
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, OutputSpec
from serving.server.config import Limits, Refusal
from serving.server.engines import EngineSettings, ServedEngine
from tests.serving.conftest import MANIFEST, MEAN, STD, color_model


@pytest.fixture
def serve(build_engine, tmp_path):
    """Opens a model of known answers as the server does."""
    opened = []

    def open_engine(**model):
        manifest = dataclasses.replace(
            MANIFEST,
            input=InputSpec("pixels", model.get("layout", "NCHW"), "float32", mean=MEAN, std=STD),
            outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
        )
        path = build_engine(tmp_path / "foreign", color_model(**model), manifest)
        opened.append(ServedEngine("foreign", path, EngineSettings(workers=1, threads=1), Limits()))
        return opened[-1]

    yield open_engine
    for each in opened:
        each.close()


def refusal(served, image):
    with pytest.raises(Refusal) as caught:
        asyncio.run(served.segment([image]))
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    ("size", "takes"), [((64, 96), "height 64 and width 96"), (("H", 96), "width 96"), ((64, "W"), "height 64")]
)
def test_a_size_that_the_file_does_not_take_is_422_with_those_that_it_takes(serve, photo, layout, size, takes):
    served = serve(layout=layout, size=size)
    image = photo(40, 70)  # padded to 64x96, the engine's stride being 32
    (answer,) = asyncio.run(served.segment([image]))
    assert np.array_equal(answer.segmentation.mask, image.argmax(-1))
    reason = f"image: this engine takes {takes}, got 128x128; resize it, or cut it into parts"
    assert refusal(served, photo(128, 128)) == (422, reason)


def test_a_range_that_the_runtime_tells_is_told(serve, photo, monkeypatch):
    served = serve()
    monkeypatch.setattr(served, "_sizes", ((64, 64), (96, 64)))

    def fail(_batch):
        raise UserError("no profile for it")

    monkeypatch.setattr(served.predictor.runtime, "infer", fail)
    status, reason = refusal(served, photo(128, 64))
    assert status == 422 and "takes height 64..96 and width 64, got 128x64" in reason
    assert refusal(served, photo(90, 64)) == (500, "the engine failed: no profile for it")


def test_too_little_memory_is_500_without_advice_for_commands(serve, photo, monkeypatch):
    served = serve()

    def fail(_batch):
        raise MemoryError

    monkeypatch.setattr(served.predictor.runtime, "infer", fail)
    assert refusal(served, photo(64, 64)) == (500, "the engine failed: too little memory")
