"""A copy of the project to which a walk was added, with a small branch that is trained, so to say, and stripped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.segmentor import build_segmentor
from pipeline.models.network.weights import SegmentorInfo, save_segmentor, tensors_sha256
from pipeline.recipes import merge
from tests.documents.project import copy_of_tracked_files
from tests.export.conftest import wake
from tests.walks.page import walks

BRANCH = "pixel_contrast-s0"
STREETS = {"train": 4, "val": 2, "test": 2, "height": 64, "width": 96, "seed": 0}
TINY = {"prepare": {"options": STREETS}, "verify": {"images": 1, "max_side": 64, "resamples": 100}}


def branch_in_a_copy(root: Path, walk: str) -> Path:
    """A copy of the project after the walk, with data/prepared and the stripped network of `BRANCH`.

    Args:
        root: where the copy is made.
        walk: heading of the walk on docs/extending.md.
    """
    copy_of_tracked_files(root)
    walks()[walk].apply(root)
    params = root / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8"))
    merge(values, TINY)
    params.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    prepare(PrepareConfig(dataset="streets", options=STREETS), root / "data/prepared")
    prepared = load_prepared(root / "data/prepared", None)
    config = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False, head="light", head_options={"width": 16})
    segmentor = wake(build_segmentor(config, prepared.num_classes, seed=0), seed=0)
    hashes = {"weights_sha256": tensors_sha256(segmentor.state_dict())}
    info = SegmentorInfo(
        model=config,
        num_classes=prepared.num_classes,
        class_names=tuple(prepared.class_names),
        palette=prepared.palette,
        ignore_index=prepared.ignore_index,
        provenance={"method": "pixel_contrast", "seed": 0} | hashes,
    )
    save_segmentor(segmentor, info, root / "artifacts" / BRANCH / "stripped")
    return root


def run(root: Path, script: str, *arguments: str) -> str:
    """Standard output of a script in the copy, with the copy's own code; it must end well."""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checks(root: Path, artifact: str, *options: str, script: str | None = None) -> dict[str, dict[str, Any]]:
    """Export an artefact in the copy and run every check on it: name -> what the check found.

    Args:
        root: the copy.
        artifact: name of it in params.yaml.
        options: of `export.check`.
        script: instead of `EXPORT_AND_CHECK`.
    """
    found = json.loads(run(root, script or EXPORT_AND_CHECK, artifact, *options).partition("#")[2])
    return {each["name"]: each for each in found["checks"]}


# A process of its own would spend most of its time on imports: stages and commands are called in one.
EXPORT_AND_CHECK = f"""
import sys
from export import check
from export.stages import export

artifact, *options = sys.argv[1:]
sys.argv = ["export", "--branch", "{BRANCH}", "--artifact", artifact]
assert export.main() == 0
sys.stdout.write("#")
sys.argv = ["check", f"artifacts/{BRANCH}/{{artifact}}/model.onnx", "--json", *options]
check.main()
"""
