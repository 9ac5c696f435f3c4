"""The scripts of examples/, each run as its first line says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.documents.project import Project, toy_project
from tests.serving.server.running import running

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGE = EXAMPLES / "demo" / "images" / "000000.png"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_predict_in_python(tmp_path):
    done = run("predict.py", IMAGE, tmp_path / "overlay.jpg")
    assert done.returncode == 0, done.stderr
    assert " road" in done.stdout.splitlines()[0] or " building" in done.stdout.splitlines()[0]
    with Image.open(tmp_path / "overlay.jpg") as picture:
        assert picture.size == (256, 192)
    done = run("predict.py", tmp_path / "gone.png", tmp_path / "overlay.jpg")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_client_for_the_server(tmp_path):
    for name in ("model.onnx", "manifest.json"):  # its golden files are of another processor, perhaps
        shutil.copy(EXAMPLES / "demo" / name, tmp_path)
    with running(tmp_path / "model.onnx") as server:
        done = run("client.py", IMAGE, tmp_path / "mask.png", "--url", server.url)
        assert done.returncode == 0, done.stderr
        assert " road" in done.stdout and np.asarray(Image.open(tmp_path / "mask.png")).shape == (192, 256)
        (tmp_path / "no-image.png").write_bytes(b"no image")
        done = run("client.py", tmp_path / "no-image.png", tmp_path / "mask.png", "--url", server.url)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    done = run("client.py", IMAGE, tmp_path / "mask.png", "--url", server.url)
    assert done.returncode == 1 and "is `contrail serve` running there?" in done.stderr


def test_a_client_names_the_file_that_it_cannot_read(tmp_path):
    done = run("client.py", tmp_path / "gone.png", tmp_path / "mask.png")
    assert done.returncode == 1 and done.stderr == f"error: {tmp_path / 'gone.png'}: No such file or directory\n"


@pytest.fixture
def toy(tmp_path) -> Project:
    return toy_project(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_own_data_end_to_end(toy, tmp_path):
    """The toy images in a folder of one's own, whose classes have names of one's own."""
    own = tmp_path / "own"
    for folder, source in (("images", "train"), ("labels", "trainannot")):
        (own / folder).mkdir(parents=True)
        for path in sorted((tmp_path / "camvid" / source).iterdir()):
            shutil.copy(path, own / folder)
    names = "\n".join(f"thing {index}" for index in range(12))
    (own / "classes.txt").write_text(f"{names}\n")
    done = toy.run(f"bash examples/own_data.sh {own} {own / 'images'} out")
    assert done.returncode == 0, done.stdout
    assert toy.params["prepare"]["dataset"] == "folder"
    assert (toy.root / "out" / "legend.png").exists() and len(list((toy.root / "out").glob("*.overlay.jpg"))) == 16
    assert "pass" in done.stdout


@pytest.mark.slow
def test_own_data_that_prepare_refuses_is_described(tmp_path):
    (tmp_path / "own/images").mkdir(parents=True)
    (tmp_path / "own/labels").mkdir()
    for name in ("a", "b", "c"):
        shutil.copy(IMAGE, tmp_path / f"own/images/{name}.png")
        if name != "c":
            Image.fromarray(np.eye(192, 256, dtype=np.uint8)).save(tmp_path / f"own/labels/{name}.png")
    (tmp_path / "recipes").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(EXAMPLES / "own_data.sh"), str(tmp_path / "own"), str(IMAGE), "out"],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "PROBLEM, missing label:" in done.stdout and "prepare:" in done.stdout
    assert not list((tmp_path / "recipes").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_new_loss_is_added_trained_and_stripped(toy):
    done = toy.run("bash examples/new_loss/add.sh")
    assert done.returncode == 0, done.stdout
    metrics = json.loads((toy.root / "metrics/train/total_variation-s0.json").read_text())
    assert metrics["contrast_steps"] > 0, "it was called"
    assert (toy.root / "artifacts/total_variation-s0/stripped/segmentor.safetensors").exists()
    assert toy.run("bash examples/new_loss/add.sh").returncode == 0, "once more changes nothing"
    assert (toy.root / "pipeline/losses/__init__.py").read_text().count('"total_variation"') == 1
