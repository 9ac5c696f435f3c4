"""The walk that adds a dataset, done in a copy of the project: it is prepared as it is published, and trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.recipes import merge
from tests.documents.project import copy_of_tracked_files
from tests.walks.page import walks

SPLITS = {"train": ("2007_000032", "2007_000039"), "val": ("2007_000033",)}
TINY: dict[str, Any] = {
    "model": {"pretrained": False},
    "train": {
        "iterations": 2,
        "batch_size": 2,
        "device": "cpu",
        "threads": 1,
        "precision": "fp32",
        "augment": {"crop": [64, 96]},
        "validate_every": 2,
    },
}


def write_voc(root: Path) -> Path:
    """Three images in the layout of VOC 2012: labels with a palette, objects of classes 1 and 20, 255 around them."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, names in SPLITS.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            label = np.zeros((64, 96), np.uint8)
            label[9:31, 9:41], label[29:61, 49:91] = 255, 255
            label[10:30, 10:40], label[30:60, 50:90] = 1, 20
            image = Image.fromarray(label, mode="P")
            image.putpalette([channel for index in range(256) for channel in (index, 0, 255 - index)])
            image.save(root / "SegmentationClass" / f"{name}.png")
            pixels = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with the dataset added."""
    root = copy_of_tracked_files(tmp_path / "contrail")
    walks()["A dataset"].apply(root)
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    merge(values, TINY)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return root


def run(root: Path, voc: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CONTRAIL_VOC": str(voc)}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_it_is_one_room_and_one_line() -> None:
    walk = walks()["A dataset"]
    assert {Path(name).parent.as_posix() for name in walk.files} == {"pipeline/data/datasets/voc"}
    assert [text.count("\n") for text in walk.lines.values()] == [1]


def test_prepare_reads_it_as_it_is_published(project: Path, tmp_path: Path) -> None:
    done = run(project, write_voc(tmp_path / "VOC2012"), "pipeline.stages.prepare", "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    prepared = json.loads((project / "data/prepared/dataset.json").read_text(encoding="utf-8"))
    assert len(prepared["class_names"]) == 21
    assert prepared["class_names"][20] == "tv monitor"
    assert prepared["palette"][:2] == [[0, 0, 0], [128, 0, 0]]
    frequencies = prepared["class_frequencies"]
    assert {index for index, share in enumerate(frequencies) if share} == {0, 1, 20}


def test_prepare_names_all_that_the_layout_lacks(project: Path, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "VOC2012")
    (voc / "SegmentationClass").rename(voc / "Masks")
    (voc / "ImageSets" / "Segmentation" / "val.txt").unlink()
    done = run(project, voc, "pipeline.stages.prepare")
    assert done.returncode == 2
    assert f"{voc / 'SegmentationClass'}: missing folder (labels)" in done.stderr
    assert f"{voc / 'ImageSets/Segmentation/val.txt'}: missing file (names of the images of val)" in done.stderr


@pytest.mark.slow
def test_it_trains(project: Path, tmp_path: Path) -> None:
    voc = write_voc(tmp_path / "VOC2012")
    for stage in (["prepare"], ["train", "--method", "cross_entropy", "--seed", "0"]):
        done = run(project, voc, f"pipeline.stages.{stage[0]}", *stage[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((project / "metrics/train/cross_entropy-s0.json").read_text(encoding="utf-8"))
    assert metrics["best_iteration"] == 2
    trainee = json.loads((project / "artifacts/cross_entropy-s0/trained/trainee.json").read_text(encoding="utf-8"))
    assert len(trainee["segmentor"]["class_names"]) == 21
