"""The walk that adds a kind of artefact, with a precision and limits of its own, done in a copy of the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.walks.branch import BRANCH, branch_in_a_copy, checks, run
from tests.walks.page import walks

WALK = "A kind of artefact"
LIMITS = """
import json
from export.checks.examination.config import VerifyConfig
from export.report.config import GateConfig
print(json.dumps([VerifyConfig().max_logit_error["w16"], GateConfig().max_miou_drop_points["w16"]]))
"""


def test_it_is_one_room_and_one_line() -> None:
    walk = walks()[WALK]
    assert {Path(name).parent.as_posix() for name in walk.files} == {"export/artifacts/onnx_w16"}
    assert [text.count("\n") for text in walk.lines.values()] == [1]


@pytest.mark.slow
def test_it_is_exported_and_judged_by_its_own_limits(tmp_path: Path) -> None:
    root = branch_in_a_copy(tmp_path, WALK)
    assert json.loads(run(root, LIMITS)) == [5e-2, 0.4]
    results = checks(root, "onnx_w16")
    assert {name: each["detail"] for name, each in results.items() if each["status"] == "fail"} == {}
    assert results["precision"]["detail"].startswith("asked for w16") and results["precision"]["threshold"] == 1.0
    assert 1e-5 < results["logits"]["measured"] < results["logits"]["threshold"] == 5e-2
    assert results["accuracy"]["threshold"] == 0.4
    manifest = json.loads((root / f"artifacts/{BRANCH}/onnx_w16/manifest.json").read_text())
    assert (manifest["precision"], manifest["kind"]) == ("w16", "onnx")

    exporter = root / "export/artifacts/onnx_w16/export.py"
    exporter.write_text(exporter.read_text().replace("values.astype(np.float16)", "values.round(1).astype(np.float16)"))
    assert checks(root, "onnx_w16")["logits"]["status"] == "fail", "one decimal loses more than its limit allows"
