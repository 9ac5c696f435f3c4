"""An engine with golden files, and what changes it without a hash giving it away."""

import dataclasses
import json

import onnx
import pytest

from serving.contract.files import file_sha256
from serving.contract.manifest import METADATA_KEY, read_sidecar, write_sidecar
from serving.golden.golden import golden_folder
from tests.serving.golden_files import golden_of


@pytest.fixture
def sound(engine, models, photo):
    """Path of an engine with golden files beside it."""
    golden_of(models["network"](), file_sha256(engine), photo).save(golden_folder(engine))
    return engine


@pytest.fixture
def sign():
    """Signs a changed engine anew, so that neither its manifest nor its golden files give it away by a hash."""

    def resign(engine, **changes):
        manifest = dataclasses.replace(read_sidecar(engine), sha256=None, **changes)
        model = onnx.load(engine)
        onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
        onnx.save(model, engine)
        write_sidecar(manifest, engine)
        path = golden_folder(engine) / "golden.json"
        values = json.loads(path.read_text())
        values["engine_sha256"] = file_sha256(engine)
        path.write_text(json.dumps(values))

    return resign


@pytest.fixture
def golden_for(models, photo):
    """Makes golden files of the network for an engine file, with what `golden_of` takes."""

    def build(engine, **options):
        golden_of(models["network"](), file_sha256(engine), photo, **options).save(golden_folder(engine))

    return build
