"""The walk that adds a runtime with a kind of file of its own, done in a copy of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.walks.branch import BRANCH, branch_in_a_copy, checks, run
from tests.walks.page import walks

# The exported graph under gzip, with a manifest that says so: checked, served and inspected by the usual runtime of its
# kind, and refused when it is damaged.
GZIP = f"""
import dataclasses, gzip, json, sys
from pathlib import Path
import numpy as np
from export import check
from serving import inspect
from serving.contract.errors import UserError
from serving.contract.manifest import read_sidecar, write_sidecar
from serving.engines.predictor import Predictor

source = Path("artifacts/{BRANCH}/onnx_fp32/model.onnx")
path = Path("packed/model.onnx.gz")
path.parent.mkdir()
path.write_bytes(gzip.compress(source.read_bytes(), mtime=0))
manifest = write_sidecar(dataclasses.replace(read_sidecar(source), kind="onnx_gz"), path)
image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
with Predictor(path) as packed, Predictor(source) as usual:
    assert packed.runtime.what_runs()["runtime"] == "reference"
    agreement = float((packed.predict(image) == usual.predict(image)).mean())
path.write_bytes(path.read_bytes()[:-100])
try:
    Predictor(path, manifest=manifest, check=False)
except UserError as error:
    refused = str(error)
path.write_bytes(gzip.compress(source.read_bytes(), mtime=0))
inspected = inspect.inspect_engine(path)
print(json.dumps([agreement, refused, inspected.holds]).join("##"))
sys.argv = ["check", str(path), "--json"]
check.main()
"""


def test_it_is_one_file_and_one_line() -> None:
    walk = walks()["A runtime"]
    assert len(walk.files) == 1
    assert [text.count("\n") for text in walk.lines.values()] == [1]


@pytest.mark.slow
def test_it_runs_what_is_exported_and_a_kind_of_file_of_its_own(tmp_path: Path) -> None:
    root = branch_in_a_copy(tmp_path, "A runtime")
    found = checks(root, "onnx_fp32", "--runtime", "reference")
    assert {name: each["detail"] for name, each in found.items() if each["status"] == "fail"} == {}

    _, told, checked = run(root, GZIP).split("#")
    agreement, refused, holds = json.loads(told)
    assert agreement > 0.999 and holds
    assert "packed/model.onnx.gz: the reference evaluator cannot open it" in refused
    statuses = {each["name"]: each["status"] for each in json.loads(checked)["checks"]}
    assert "fail" not in statuses.values(), statuses
    assert statuses["masks"] == statuses["shapes"] == statuses["accuracy"] == "pass"
    assert statuses["structure"] == statuses["logits"] == "skipped", "a file that shows no graph"
