"""The walk that adds a check, done in a copy of the project: it runs beside the others, and sees what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.checks import CHECKS
from tests.walks.branch import EXPORT_AND_CHECK, branch_in_a_copy, checks
from tests.walks.page import walks

# The same, with an engine that adds 1 to every second mask.
UNSTABLE = f"""
import numpy as np
from serving.engines.runtimes.onnxruntime import OnnxRuntime

infer, calls = OnnxRuntime.infer, []

def unstable(self, batch):
    calls.append(1)
    outputs = infer(self, batch)
    outputs["mask"] = outputs["mask"] + np.uint8(len(calls) % 2)
    return outputs

OnnxRuntime.infer = unstable
{EXPORT_AND_CHECK}
"""


def test_it_is_one_file_and_one_line() -> None:
    walk = walks()["A check"]
    assert len(walk.files) == 1
    assert [text.count("\n") for text in walk.lines.values()] == [1]


@pytest.mark.slow
def test_it_passes_a_sound_engine_and_fails_one_that_changes_its_mind(tmp_path: Path) -> None:
    root = branch_in_a_copy(tmp_path, "A check")
    sound = checks(root, "onnx_fp32")
    assert len(sound) == len(list(CHECKS)) + 1 and {each["status"] for each in sound.values()} == {"pass"}
    assert checks(root, "onnx_fp32", script=UNSTABLE)["repeatable"]["status"] == "fail"
