"""The model repository for Triton: valid by its schema, and what Triton would run by it runs and gives our masks."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

pytest.importorskip("tritonclient.grpc", reason="the extra `triton` is not installed")

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from export import triton
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.contract.manifest import InputSpec, OutputSpec, read_sidecar
from serving.engines.predictor import Predictor
from serving.golden.golden import golden_folder
from serving.golden.selftest import self_test
from serving.images.geometry import place
from tests.serving import conftest as engines
from tests.serving.golden_files import golden_of

DTYPES = {schema.TYPE_UINT8: np.uint8, schema.TYPE_FP32: np.float32}


@pytest.fixture
def build_engine():
    return engines.build_engine.__wrapped__()  # type: ignore[attr-defined]


@pytest.fixture
def photo():
    return engines.photo.__wrapped__()  # type: ignore[attr-defined]


@pytest.fixture
def engine(build_engine, photo, tmp_path):
    path = build_engine(tmp_path / "engine")
    golden_of(engines.network_model(), file_sha256(path), photo).save(golden_folder(path))
    return path


@pytest.fixture
def write(monkeypatch, capsys):
    """Runs the command; returns the model's configuration."""

    def run(engine, repository, *options):
        words = ["python -m export.triton", str(engine), "--repository", str(repository), *options]
        monkeypatch.setattr("sys.argv", words)
        assert triton.main() == 0
        text = (Path(capsys.readouterr().out.strip()) / "config.pbtxt").read_text(encoding="utf-8")
        return text_format.Parse(text, schema.ModelConfig())

    return run


def test_the_configuration_is_valid_and_says_what_was_asked(engine, write, tmp_path):
    config = write(engine, tmp_path / "models", "--max-batch", "4", "--delay-us", "500", "--instances", "2",
                   "--threads", "1", "--name", "street")  # fmt: skip
    assert (config.name, config.backend, config.max_batch_size) == ("street", "onnxruntime", 4)
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [
        ("image", schema.TYPE_UINT8, [-1, -1, 3])
    ]
    assert [(each.name, each.data_type, list(each.dims)) for each in config.output] == [
        ("mask", schema.TYPE_UINT8, [-1, -1])
    ]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert [(each.count, each.kind) for each in config.instance_group] == [(2, schema.ModelInstanceGroup.KIND_CPU)]
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert config.parameters["contrail.sha256"].string_value == read_sidecar(engine).sha256


def test_the_warm_up_is_golden_images_that_the_engine_takes(engine, write, tmp_path, photo):
    """As Triton makes its requests: the file's bytes in the dimensions named, repeated to the batch."""
    config = write(engine, tmp_path / "models")
    folder = tmp_path / "models" / config.name
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    sizes = set()
    for request in config.model_warmup:
        (tensor,) = request.inputs.values()
        content = (folder / "warmup" / tensor.input_data_file).read_bytes()
        one = np.frombuffer(content, DTYPES[tensor.data_type]).reshape(tuple(tensor.dims))
        (mask,) = session.run(None, {"image": np.repeat(one[None], request.batch_size, 0)})
        assert mask.shape == (request.batch_size, *one.shape[:2])
        sizes.add((request.batch_size, *one.shape[:2]))
    assert sizes == {(batch, *size) for batch in (1, 8) for size in [(96, 128), (64, 64), (64, 96)]}
    with Predictor(engine) as predictor:
        placed, _ = place(photo(96, 128, 0), stride=32)
        assert np.array_equal(session.run(None, {"image": placed[None]})[0][0], predictor.predict(photo(96, 128, 0)))


def test_the_model_can_be_tested_where_it_lies(engine, write, tmp_path):
    config = write(engine, tmp_path / "models")
    with Predictor(tmp_path / "models" / config.name / "1" / "model.onnx") as predictor:
        assert self_test(predictor).passed


def test_a_model_of_one_size_and_batch_is_left_without_batching(build_engine, write, tmp_path):
    manifest = dataclasses.replace(
        engines.MANIFEST,
        name="foreign",
        input=InputSpec("pixels", "NCHW", "float32", mean=engines.MEAN, std=engines.STD, resize=(64, 96)),
        outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
    )
    path = build_engine(tmp_path / "foreign", engines.color_model(size=(64, 96), batch=1), manifest)
    config = write(path, tmp_path / "models")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, 3, 64, 96] and config.input[0].data_type == schema.TYPE_FP32
    assert list(config.output[0].dims) == [1, -1, -1, -1] and not config.model_warmup


def foreign(dtype, content="logits"):
    layout = "NCHW" if content == "logits" else "NHW"
    return dataclasses.replace(
        engines.MANIFEST,
        input=InputSpec("pixels", "NCHW", "float32", mean=(0, 0, 0), std=(1, 1, 1)),
        outputs=(OutputSpec("result", content, layout, dtype),),
    )


def identity(dtype, shape):
    """float32 `pixels` in, itself as `result` of another type out."""
    g = engines.Graph()
    g.add("Cast", ["pixels"], "result", to=dtype)
    taken = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    return g.model([taken], [helper.make_tensor_value_info("result", dtype, shape)], None)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", "TYPE_FP64"), ("int8", "TYPE_INT8"), ("uint16", "TYPE_UINT16"), ("bool", "TYPE_BOOL"),
     ("bfloat16", "TYPE_BF16")],
)  # fmt: skip
def test_every_type_of_tensors_has_triton_s_name(build_engine, write, tmp_path, dtype, expected):
    model = identity(getattr(TensorProto, {"float64": "DOUBLE"}.get(dtype, dtype.upper())), ["B", 3, "H", "W"])
    config = write(build_engine(tmp_path / "foreign", model, foreign(dtype)), tmp_path / "models")
    assert config.output[0].data_type == getattr(schema, expected)


def test_a_type_that_triton_has_not_is_named(build_engine, write, tmp_path):
    model = identity(TensorProto.STRING, ["B", 3, "H", "W"])
    with pytest.raises(UserError, match=r"Triton has the types bool, .*; of another are:\n  'result': string"):
        write(build_engine(tmp_path / "foreign", model, foreign("string")), tmp_path / "models")


def test_an_engine_that_does_not_fit_its_manifest_is_refused(build_engine, write, tmp_path):
    model = identity(TensorProto.FLOAT, ["B", 3, "H", "W"])
    manifest = dataclasses.replace(foreign("uint8", "mask"), input=InputSpec("images"))
    with pytest.raises(UserError) as caught:
        write(build_engine(tmp_path / "foreign", model, manifest), tmp_path / "models")
    assert "does not fit its manifest" in str(caught.value) and "manifest names 'images'" in str(caught.value)
    assert "'result': manifest says 3 axes, the engine has 4" in str(caught.value)


def test_an_input_without_a_shape_is_refused(build_engine, write, tmp_path):
    model = identity(TensorProto.FLOAT, ["B", 3, "H", "W"])
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UserError, match="input 'pixels' has no shape"):
        write(build_engine(tmp_path / "foreign", model, foreign("float32")), tmp_path / "models")


def test_an_older_model_is_replaced_and_nothing_else(engine, write, tmp_path):
    write(engine, tmp_path / "models")
    write(engine, tmp_path / "models", "--max-batch", "2")
    (tmp_path / "models" / "mine").mkdir()
    with pytest.raises(UserError, match="no model of Triton's"):
        write(engine, tmp_path / "models", "--name", "mine")


@pytest.mark.parametrize("name", ["", "..", "a/b", "n" * 300])
def test_a_name_that_is_no_folders_is_refused(engine, write, tmp_path, name):
    (tmp_path / "models").mkdir()
    options = ["--name", name] if name else ["--name=\n"]
    with pytest.raises(UserError, match="name"):
        write(engine, tmp_path / "models", *options)


def test_a_changed_engine_is_refused(engine, write, tmp_path):
    engine.write_bytes(engine.read_bytes() + b"x")
    with pytest.raises(UserError, match="not the file its manifest describes"):
        write(engine, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_numbers_out_of_range_are_refused_all_at_once(engine, write, tmp_path):
    with pytest.raises(UserError) as caught:
        write(engine, tmp_path / "models", "--max-batch", "0", "--instances", "0")
    assert "--max-batch: expected at least 1, got 0\n--instances" in str(caught.value)
    with pytest.raises(UserError) as caught:
        write(engine, tmp_path / "models", "--max-batch", "3000000000", "--instances", "3000000000",
              "--delay-us", "99999999999999999999", "--threads", "3000000000")  # fmt: skip
    assert str(caught.value).splitlines() == [
        "--max-batch: expected at most 1024, got 3000000000",
        "--delay-us: expected at most 60000000, got 99999999999999999999",
        "--instances: expected at most 1024, got 3000000000",
        "--threads: expected at most 1024, got 3000000000",
    ]


def test_a_schema_that_is_broken_would_be_seen(engine, write, tmp_path):
    config = write(engine, tmp_path / "models")
    text = text_format.MessageToString(config).replace("max_batch_size", "max_batchsize")
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text, schema.ModelConfig())
