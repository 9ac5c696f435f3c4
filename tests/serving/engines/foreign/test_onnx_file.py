"""ONNX files read from their bytes: the same as the onnx package reads, and nothing kept elsewhere gets by."""

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from serving.contract.errors import UserError
from serving.engines.foreign.onnx_file import read_onnx, require_single_file


def test_io_and_metadata_are_what_onnx_reads(tmp_path, models):
    path = tmp_path / "model.onnx"
    onnx.save(models["network"]({"contrail.manifest": '{"ä": 1}', "other": ""}, confidence=True), path)
    content = read_onnx(path)
    assert (content.ir_version, content.producer, content.opset) == (10, "tests", 18)
    assert content.metadata == {"contrail.manifest": '{"ä": 1}', "other": ""}
    assert [(each.name, each.dtype, each.shape) for each in content.inputs] == [("image", "uint8", ("B", "H", "W", 3))]
    assert [(each.name, each.dtype) for each in content.outputs] == [("mask", "uint8"), ("confidence", "uint8")]
    assert content.external == ()


def test_initializers_listed_as_inputs_are_no_inputs(tmp_path, models):
    model = models["color"](size=(8, 9))
    for constant in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(constant.name, constant.data_type, constant.dims))
    onnx.save(model, tmp_path / "model.onnx")
    content = read_onnx(tmp_path / "model.onnx")
    assert [(each.name, each.shape) for each in content.inputs] == [("pixels", ("B", 3, 8, 9))]


def test_weights_in_another_file_are_refused(tmp_path, models):
    path = tmp_path / "model.onnx"
    onnx.save(models["network"](), path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    assert read_onnx(path).external == ("weights.bin",)
    with pytest.raises(UserError, match=r"weights in other files \('weights\.bin'\).*single-file"):
        require_single_file(path)


def outside(name="/etc/passwd"):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=name)
    return tensor


def hidden_in_attribute(model):
    model.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=outside()))


def hidden_in_tensor_list(model):
    model.graph.node.append(helper.make_node("Custom", [], ["hidden"], values=[outside()]))


def hidden_in_subgraph(model):
    branch = helper.make_graph([], "branch", [], [], [outside()])
    inner = helper.make_node("If", ["condition"], ["hidden"], then_branch=branch, else_branch=branch)
    outer = helper.make_graph([inner], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", [], ["looped"], body=outer))


def hidden_in_function(model):
    node = helper.make_node("Constant", [], ["hidden"], value=outside())
    model.functions.append(helper.make_function("local", "F", [], ["hidden"], [node], [helper.make_opsetid("", 18)]))


def hidden_in_sparse(model):
    sparse = onnx.SparseTensorProto(values=outside(), indices=outside(), dims=[2])
    model.graph.sparse_initializer.append(sparse)


def hidden_in_training(model):
    model.training_info.add().algorithm.initializer.append(outside())


def hidden_without_entries(model):
    model.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[2], data_location=TensorProto.EXTERNAL))


@pytest.mark.parametrize("hide", [each for name, each in sorted(globals().items()) if name.startswith("hidden_")])
def test_external_data_is_found_wherever_it_hides(tmp_path, models, hide):
    model = models["network"]()
    hide(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    expected = "?" if hide is hidden_without_entries else "/etc/passwd"
    assert read_onnx(tmp_path / "model.onnx").external == (expected,)


def test_a_file_cut_anywhere_is_refused_or_read_but_never_crashes(tmp_path, models):
    whole = models["network"]({"key": "value"}).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in [0, 1, 2, *range(3, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="truncated, corrupt or no ONNX file"):
            read_onnx(path)
    path.write_bytes(whole)
    read_onnx(path)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_bytes_and_damage_give_a_user_error_or_a_reading(tmp_path, models, data):
    content = bytearray(models["network"]({"key": "value"}).SerializeToString())
    if data.draw(st.booleans()):
        content = bytearray(data.draw(st.binary(max_size=200)))
    for _ in range(data.draw(st.integers(0, 6))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        read_onnx(path)
    except UserError as error:
        assert "\n" not in str(error)


def field(number, content):
    """A length-delimited protobuf field."""
    length, size = len(content), b""
    while length > 0x7F:
        size += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_nesting_as_deep_as_the_file_says_is_followed_to_its_end(tmp_path):
    graph = field(5, outside().SerializeToString())
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))  # node -> attribute -> graph
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x0a" + field(7, graph))
    assert read_onnx(tmp_path / "deep.onnx").external == ("/etc/passwd",)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_onnx(tmp_path / "gone.onnx")


def test_a_large_model_is_walked_without_reading_its_weights(tmp_path):
    weights = numpy_helper.from_array(np.zeros(50_000_000, np.uint8), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [weights]))
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_onnx(path).external == ()
