"""Every form of the tail gives the masks of the one that ships, in both runtimes."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import tail
from serving.contract.errors import UserError


@pytest.mark.parametrize("classes", [2, 5])
def test_all_forms_give_the_same_masks(classes):
    pytest.importorskip("openvino")
    rows = tail.run(classes, 64, 1)
    assert {row["runtime"] for row in rows} == {"onnxruntime", "openvino"}
    assert {row["form"] for row in rows} == set(tail.models(classes)) and len(rows) == 10
    for row in rows:
        assert row["differing_pixels"] == 0 and row["ms"] > 0, row
        assert row["ratio"] == 1 or row["form"] != tail.SHIPPED


def test_the_command_writes_json(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tail", "--classes", "3", "--side", "32", "--rounds", "1", "--json"])
    assert tail.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["side"] == 32 and {row["classes"] for row in found["forms"]} == {3}


def test_odd_sides_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tail", "--side", "30"])
    with pytest.raises(UserError, match="multiple of 8"):
        tail.main()
