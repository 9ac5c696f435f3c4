"""What training recorded, read back."""

from __future__ import annotations

from export.records.recorded import load_curves
from pipeline.layout.branches import BranchConfig
from pipeline.layout.paths import curves_dir


def test_curves_come_by_quantity_and_branch_and_those_of_elsewhere_are_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    branches = {f"{name}-s0": BranchConfig(name, name, 0) for name in ("cross_entropy", "contextrast")}
    folder = curves_dir("contextrast", 0) / "plots/metrics"
    folder.mkdir(parents=True)
    (folder / "cross_entropy.tsv").write_text("step\tcross_entropy\n10\t1.5\n20\t0.75\n")
    assert load_curves(branches) == {"cross_entropy": {"contextrast-s0": [[10.0, 1.5], [20.0, 0.75]]}}
