"""Atomic writes, hashes and the files of a segmentor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import (
    SegmentorInfo,
    load_segmentor,
    load_tensors,
    save_segmentor,
    save_tensors,
    tensors_sha256,
)
from serving.contract.errors import UserError
from serving.contract.files import atomic_dir, atomic_path, read_json, write_json

INFO = SegmentorInfo(
    model=ModelConfig(pretrained=False),
    num_classes=3,
    class_names=("road", "sky", "car"),
    palette=((0, 0, 0), (1, 2, 3), (255, 0, 0)),
    ignore_index=255,
    provenance={"method": "cross_entropy", "seed": 0},
)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with atomic_dir(folder) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_dir(folder) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_json_has_no_nan_and_takes_numpy(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": np.float64("nan"), "b": np.arange(2), "c": (1.5, INFO)})
    value = json.loads((tmp_path / "a.json").read_text())
    assert value["a"] is None
    assert value["b"] == [0, 1]
    assert value["c"][1]["class_names"] == ["road", "sky", "car"]


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_a_missing_or_broken_json_names_the_stage_that_makes_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="`strip`"):
        read_json(path, made_by="strip")


def test_equal_tensors_give_equal_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    weight = torch.arange(24.0).reshape(1, 2, 3, 4)
    save_tensors({"b": weight, "a": torch.ones(2)}, tmp_path / "1")
    save_tensors({"a": torch.ones(2), "b": weight.to(memory_format=torch.channels_last)}, tmp_path / "2")
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_hash_of_tensors_sees_values_names_shapes_and_dtypes() -> None:
    base = {"a": torch.zeros(4)}
    others = [{"b": torch.zeros(4)}, {"a": torch.zeros(2, 2)}, {"a": torch.zeros(4).half()}, {"a": torch.ones(4)}]
    hashes = {tensors_sha256(tensors) for tensors in [base, *others]}
    assert len(hashes) == 5
    assert tensors_sha256({"a": torch.zeros(4)}) == tensors_sha256(base)


def test_a_segmentor_comes_back_as_it_was(tmp_path: Path) -> None:
    segmentor = build_segmentor(INFO.model, 3, seed=1).eval()
    save_segmentor(segmentor, INFO, tmp_path / "stripped")
    again, info = load_segmentor(tmp_path / "stripped")
    assert info == INFO
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(segmentor(images), again(images))


def test_damaged_weights_are_one_clear_error(tmp_path: Path) -> None:
    segmentor = build_segmentor(INFO.model, 3, seed=1)
    save_segmentor(segmentor, INFO, tmp_path / "stripped")
    weights = tmp_path / "stripped" / "segmentor.safetensors"
    complete = weights.read_bytes()
    weights.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_segmentor(tmp_path / "stripped")
    tensors = dict(segmentor.state_dict())
    tensors.popitem()
    save_tensors(tensors, weights)
    with pytest.raises(UserError, match="do not fit"):
        load_segmentor(tmp_path / "stripped")
    weights.unlink()
    with pytest.raises(UserError, match="no such file"):
        load_tensors(weights, made_by="strip")


def test_a_strange_description_lists_its_problems(tmp_path: Path) -> None:
    save_segmentor(build_segmentor(INFO.model, 3, seed=1), INFO, tmp_path / "stripped")
    path = tmp_path / "stripped" / "segmentor.json"
    values = json.loads(path.read_text()) | {"num_classes": "three", "extra": 1}
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"(?s)segmentor\.extra: unknown key.*segmentor\.num_classes"):
        load_segmentor(tmp_path / "stripped")
