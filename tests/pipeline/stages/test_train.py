"""The stage that trains one branch, as `dvc repro` starts it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.layout.paths import PREPARED_DIR, train_metrics_path
from pipeline.params import read_yaml
from pipeline.stages import train
from serving.contract.errors import UserError


def test_pairs_that_were_left_out_are_in_the_metrics(
    repository: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--method", "cross_entropy", "--seed", "0"])
    values = read_yaml(repository / "params.yaml")
    values["prepare"] = {"dataset": "folder", "root": str(tiny_root), "options": {}}
    values["train"] |= {"iterations": 4, "batch_size": 2, "validate_every": 4, "device": "cpu", "threads": 1}
    values["train"] |= {"augment": {"crop": [64, 64]}, "skip_budget": 1}
    values["model"]["pretrained"] = False
    Path("params.yaml").write_text(json.dumps(values))
    prepare(PrepareConfig(dataset="folder", root=str(tiny_root)), PREPARED_DIR)
    pair = load_prepared(PREPARED_DIR, tiny_root).splits["train"].entries[0]

    (tiny_root / pair.image).rename(tmp_path / "moved")
    try:
        assert train.main() == 0
        assert json.loads(train_metrics_path("cross_entropy", 0).read_text())["left_out"] == [pair.name]
        values["train"]["skip_budget"] = 0
        Path("params.yaml").write_text(json.dumps(values))
        with pytest.raises(UserError, match=pair.image):
            train.main()
    finally:
        (tmp_path / "moved").rename(tiny_root / pair.image)
    assert train.main() == 0
    assert "left_out" not in json.loads(train_metrics_path("cross_entropy", 0).read_text())
