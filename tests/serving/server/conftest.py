"""One server with two engines for most tests of this room."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.manifest import METADATA_KEY, OutputSpec
from serving.engines.predictor import Predictor
from tests.serving import conftest as engines
from tests.serving.server.running import running

CONFIDENT = dataclasses.replace(
    engines.MANIFEST,
    name="confident",
    outputs=(OutputSpec(), OutputSpec(name="confidence", content="confidence", dtype="uint8")),
)


@pytest.fixture(scope="session")
def engine_files(tmp_path_factory) -> dict[str, Path]:
    """Two engines by name."""
    build = engines.build_engine.__wrapped__() if hasattr(engines.build_engine, "__wrapped__") else None
    assert build is not None
    folder = tmp_path_factory.mktemp("engines")
    confident = engines.network_model({METADATA_KEY: CONFIDENT.to_json()}, confidence=True)
    return {"onnx_fp32": build(folder / "plain"), "confident": build(folder / "confident", confident, CONFIDENT)}


@pytest.fixture(scope="session")
def server(engine_files):
    """A server with both, its defaults but for small limits."""
    with running(
        *engine_files.values(),
        "--workers",
        2,
        "--threads",
        2,
        "--max-pixels",
        1_000_000,
        "--max-body-mib",
        4,
        "--max-connections",
        32,
    ) as server:
        yield server


@pytest.fixture(scope="session")
def predictor(engine_files):
    """The first engine, as the command opens it."""
    with Predictor(engine_files["onnx_fp32"], options={"threads": 1}) as predictor:
        yield predictor


@pytest.fixture
def png():
    """The bytes of an image's file."""

    def encode(image, name="PNG", **options):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, name, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def pixels():
    """The values in the bytes of an image's file, as they are stored."""

    def decode(content):
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image)

    return decode
