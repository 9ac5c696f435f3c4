"""What holds for every runtime in the registry."""

import dataclasses
import json

import onnx
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import METADATA_KEY, write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes import RUNTIMES, default_runtime
from serving.engines.runtimes.runtime import Runtime


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_each_resolves_without_its_library_and_says_what_it_opens(name):
    runtime = RUNTIMES.resolve(name)
    assert issubclass(runtime, Runtime)
    assert runtime.name == name and runtime.kinds
    for kind in runtime.kinds:
        assert name == default_runtime(kind) or kind == "onnx"


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_each_refuses_unknown_options_and_changed_files_before_it_loads(name, tmp_path, engine, manifest):
    kind = next(iter(RUNTIMES.resolve(name).kinds))
    path = engine if kind == "onnx" else tmp_path / "model.plan"
    if kind != "onnx":
        path.write_bytes(b"a plan")
        write_sidecar(dataclasses.replace(manifest, kind=kind), path)
    with pytest.raises(UserError, match=f"options of {name}.turbo: unknown key"):
        Predictor(path, runtime=name, options={"turbo": True})
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UserError, match="not the file its manifest describes"):
        Predictor(path, runtime=name)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_manifest_that_contradicts_the_one_inside_the_file_is_refused(name, engine, manifest):
    write_sidecar(dataclasses.replace(manifest, class_names=manifest.class_names[::-1]), engine)
    with pytest.raises(UserError, match=r"manifest\.json contradicts the manifest inside the file \(class_names\): it"):
        Predictor(engine, runtime=name)
    Predictor(engine, runtime=name, check=False).close()
    values = json.loads(manifest.to_json())
    del values["ignore_index"]  # another text, as of another version, that says the same
    model = onnx.load(engine)
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(values)})
    onnx.save(model, engine)
    write_sidecar(manifest, engine)
    Predictor(engine, runtime=name).close()


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_a_file_that_no_hash_vouches_for_is_opened_only_where_that_is_said(name, tmp_path, manifest):
    kind = next(iter(RUNTIMES.resolve(name).kinds))
    path = tmp_path / "engine"
    path.write_bytes(b"an engine")
    without = dataclasses.replace(manifest.without_hash(), kind=kind)
    with pytest.raises(UserError, match="no sha256 in it, so it proves nothing of engine"):
        RUNTIMES.resolve(name).open(path, without, {})
    with pytest.raises(UserError) as refused:
        RUNTIMES.resolve(name).open(path, without, {}, check_hash=False)
    assert "sha256" not in str(refused.value)
