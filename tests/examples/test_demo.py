"""The engine in the repository: whole, small, and good for a picture without any training."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving import Predictor
from serving.contract.files import file_sha256
from serving.contract.manifest import verify_sidecar
from serving.golden.golden import Golden, golden_folder
from tests.documents.project import copy_of_tracked_files

DEMO = Path(__file__).parents[2] / "examples" / "demo"
ENGINE = DEMO / "model.onnx"


def sums() -> dict[str, str]:
    lines = (DEMO / "SHA256SUMS").read_text().splitlines()
    return {name: sha256 for sha256, name in (line.split("  ") for line in lines)}


def test_every_file_is_the_one_that_is_named_and_all_are_small():
    there = {path.relative_to(DEMO).as_posix() for path in DEMO.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert there == set(sums())
    assert {name: file_sha256(DEMO / name) for name in there} == sums()
    assert sum((DEMO / name).stat().st_size for name in there) < 5_000_000
    assert len([name for name in there if name.startswith("images/")]) == 3


def test_the_engine_is_of_its_manifest_and_golden_files():
    manifest = verify_sidecar(ENGINE)
    assert (manifest.precision, manifest.provenance["dataset"]) == ("int8", "streets")
    assert Golden.load(golden_folder(ENGINE)).engine_sha256 == manifest.sha256


def test_it_says_what_pytorch_said():
    """On most pixels: how INT8 rounds depends on the processor (docs/engines.md)."""
    golden = Golden.load(golden_folder(ENGINE))
    with Predictor(ENGINE, options={"threads": 1}) as predictor:
        alike = [(predictor.predict(each.image) == each.mask).mean() for each in golden.inputs[:2]]
    assert min(alike) > 0.85


@pytest.mark.slow
def test_make_demo_gives_overlays_without_any_training(tmp_path):
    project = copy_of_tracked_files(tmp_path / "contrail")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "PYTHONPATH"))
    }
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", "demo"]
    subprocess.run(command, cwd=project, env=environment, check=True, timeout=120)
    made = {
        path.relative_to(project / "predictions" / "demo").as_posix() for path in (project / "predictions").rglob("*.*")
    }
    assert {"000000.png", "000000.overlay.jpg", "000002.overlay.jpg", "legend.png"} <= made
    mask = np.asarray(Image.open(project / "predictions" / "demo" / "000000.png"))
    assert mask.shape == (192, 256)
    assert (mask[-40:] == 0).mean() > 0.5, "most of the lower edge is road"
    assert len(np.unique(mask)) >= 5
    assert not (project / "artifacts").exists() and not (project / "data").exists()
