"""Manifests: round trips, every problem named at once, and no file that passes for another."""

import dataclasses
import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contract.errors import UserError
from serving.contract.files import write_atomically
from serving.contract.manifest import (
    InputSpec,
    Manifest,
    OutputSpec,
    read_manifest,
    read_sidecar,
    verify_sidecar,
    write_sidecar,
)

MANIFEST = Manifest(
    name="onnx_fp32",
    kind="onnx",
    precision="fp32",
    class_names=("sky", "road"),
    palette=((70, 130, 180), (128, 64, 128)),
    provenance={"method": "cross_entropy", "seed": 0},
)


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an engine, as far as hashes go")
    write_sidecar(MANIFEST, path)
    return path


def damaged(**changes):
    values = json.loads(MANIFEST.to_json())
    values.update(changes)
    return json.dumps(values)


def test_json_round_trip_is_exact_and_stable():
    text = MANIFEST.to_json()
    assert Manifest.from_json(text) == MANIFEST
    assert Manifest.from_json(text).to_json() == text
    assert "sha256" not in json.loads(text)


@settings(deadline=None)
@given(
    names=st.lists(st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1), min_size=1, unique=True),
    mean=st.tuples(*[st.floats(2, 255)] * 3) | st.just((0.0, 0.0, 0.0)),
    resize=st.none() | st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
)
def test_any_valid_manifest_survives_json(names, mean, resize):
    names = [name for name in names if name.isprintable()] or ["thing"]
    manifest = Manifest(
        name="other",
        kind="onnx",
        precision="unknown",
        class_names=tuple(names),
        palette=((0, 0, 255),) * len(names),
        input=InputSpec(layout="NCHW", dtype="float32", mean=mean, std=(58.0, 57.0, 57.5), stride=1, resize=resize),
        outputs=(OutputSpec("logits", "logits", "NCHW", "float32"),),
    )
    assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"mean": (0, 0, 0)}, "std: a float32 input needs it"),
        ({"std": (1, 1, 1)}, "mean: a float32 input needs it"),
        ({"mean": (0.485, 0.456, 0.406), "std": (58.0, 57.0, 57.5)}, "0.485 of 0..1 images is 123.675"),
        ({"mean": (0, 0, 0), "std": (0.229, 0.224, 0.225)}, "0.229 of 0..1 images is 58.395"),
    ],
)
def test_a_float_input_says_how_it_is_normalised_in_0_to_255_units(values, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        InputSpec(dtype="float32", **values)
    InputSpec(dtype="float32", mean=(0, 0, 0), std=(1, 1, 1))


def test_all_problems_are_listed_at_once():
    text = damaged(
        kind="magic",
        palette=[[0, 0, 256]],
        colour=1,
        input={"layout": "HWC", "stryde": 8},
        outputs=[{"name": "mask", "content": "mask", "layout": "NHW", "dtype": 3}],
    )
    with pytest.raises(UserError) as caught:
        Manifest.from_json(text, source="m.json")
    message = str(caught.value)
    for part in (
        "m.json: not a valid manifest",
        "manifest.colour: unknown key",
        "manifest.input.stryde: unknown key; did you mean 'stride'?",
        "manifest.input.layout: expected one of NHWC, NCHW",
        "manifest.outputs[0].dtype: expected text",
    ):
        assert part in message
    with pytest.raises(UserError) as caught:
        Manifest.from_json(damaged(kind="no word", palette=[[0, 0, 256]], ignore_index=300, sha256="ABC"))
    for part in ("kind: expected", "palette: expected 2", "palette: expected channels", "ignore_index", "sha256"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object, got list"),
        ("[" * 100_000, "not valid JSON"),
        ("{}", "manifest.class_names: missing"),
        (damaged(schema=2), "manifest schema 2; this Contrail reads schema 1"),
        (damaged(class_names=[]), "expected 1 to 256 names, got 0"),
        (damaged(class_names=["road", "road"]), "repeated: 'road'"),
        (damaged(class_names=["road", "\x1b[2Jsky"]), "printable"),
        (damaged(outputs=[]), "exactly one that gives the mask, got none"),
        (damaged(input={"dtype": "uint8", "mean": [1, 2, 3]}), "a uint8 input is not normalised outside the graph"),
        (damaged(input={"dtype": "float32", "std": [1, 0, 3]}), "std: expected in 0..255 units"),
        (damaged(input={"dtype": "float32", "mean": [1, float("nan"), 3]}), "not valid JSON: NaN is no finite"),
        (damaged(details={"deep": [{"drop": float("-inf")}]}), "not valid JSON: -Infinity is no finite number"),
        (damaged(provenance={"seed": 0}).replace("0}", "1e999}"), "not valid JSON: 1e999 is no finite number"),
        (damaged(input={"stride": 0}), "stride: expected in 1..4096, got 0"),
        (damaged(input={"resize": [0, 5]}), "resize: expected height and width"),
        (damaged(outputs=[{"name": "o", "content": "logits", "layout": "NHW"}]), "logits have a class axis"),
    ],
)
def test_a_bad_manifest_gives_one_clear_error(text, expected):
    with pytest.raises(UserError, match=r"m\.json: ") as caught:
        Manifest.from_json(text, source="m.json")
    assert expected in str(caught.value)


def test_a_manifest_that_json_cannot_hold_is_a_programming_error():
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(MANIFEST, details={"path": object()}).to_json()
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(MANIFEST, details={"drop": float("nan")}).to_json()


def test_mask_and_confidence_outputs_are_found_by_content():
    manifest = dataclasses.replace(MANIFEST, outputs=(OutputSpec("confidence", "confidence"), OutputSpec()))
    assert manifest.mask_output.name == "mask"
    assert manifest.confidence_output is not None and manifest.confidence_output.name == "confidence"
    assert MANIFEST.confidence_output is None


def test_the_sidecar_names_the_hash_and_is_the_same_bytes_twice(engine):
    first = (engine.parent / "manifest.json").read_bytes()
    assert write_sidecar(MANIFEST, engine) == read_sidecar(engine) == verify_sidecar(engine)
    assert (engine.parent / "manifest.json").read_bytes() == first
    assert read_sidecar(engine).sha256 is not None
    assert sorted(path.name for path in engine.parent.iterdir()) == ["manifest.json", "model.onnx"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b"A" + b[1:]])
def test_an_engine_that_changed_by_a_byte_is_refused(engine, damage):
    engine.write_bytes(damage(engine.read_bytes()))
    with pytest.raises(UserError, match=r"not the file its manifest describes.*dvc repro"):
        verify_sidecar(engine)
    read_sidecar(engine)  # reading alone compares nothing


def test_a_missing_manifest_engine_or_hash_is_refused(engine, tmp_path):
    other = tmp_path / "elsewhere" / "model.onnx"
    with pytest.raises(UserError, match="no such file"):
        verify_sidecar(other)
    with pytest.raises(UserError, match="is a folder"):
        verify_sidecar(tmp_path)
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        verify_sidecar(tmp_path / ("n" * 300) / "model.onnx")
    other.parent.mkdir()
    other.write_bytes(engine.read_bytes())
    with pytest.raises(UserError, match=r"no manifest\.json beside it"):
        verify_sidecar(other)
    (other.parent / "manifest.json").write_text(MANIFEST.to_json())
    with pytest.raises(UserError, match="no sha256 in it"):
        verify_sidecar(other)


def test_a_manifest_that_is_no_text_or_far_too_large_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match="not UTF-8"):
        read_manifest(path)
    with path.open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UserError, match="too many for a manifest"):
        read_manifest(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    write_atomically(path, b"old")

    def full_disk(self, target):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(type(path), "replace", full_disk)
    with pytest.raises(UserError, match=r"mask\.png: cannot be written: No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.png"]
