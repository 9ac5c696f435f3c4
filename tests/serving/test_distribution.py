"""The wheel of serving alone: built, installed beside numpy, Pillow and ONNX Runtime and nothing else, and used."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.command import require_one_distribution
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.golden.golden import golden_folder
from tests.serving.golden_files import golden_of

ROOT = Path(__file__).parent.parent.parent
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALONE = tomllib.loads((ROOT / "serving" / "distribution.toml").read_text())["project"]
# What the program needs to run an engine, each with what it needs in turn.
NEEDED = ("numpy", "pillow", "onnxruntime", "protobuf", "flatbuffers", "packaging")


def test_both_distributions_have_one_version_and_agree_on_what_they_need():
    for key in ("version", "requires-python", "license", "classifiers", "scripts"):
        assert ALONE[key] == WHOLE[key], key
    assert set(ALONE["dependencies"]) <= set(WHOLE["dependencies"])
    extras = {"onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "server", "video", "bulk"}
    assert extras <= set(ALONE["optional-dependencies"])
    ranges = {each for extra in WHOLE["optional-dependencies"].values() for each in extra}
    for requirement in (each for extra in ALONE["optional-dependencies"].values() for each in extra):
        assert requirement.replace("[cuda,cudnn]", "") in ranges, requirement


@pytest.mark.parametrize("both", [True, False])
def test_both_in_one_environment_are_refused_in_words(tmp_path, monkeypatch, both):
    names = ["contrail_seg-0.2.0.dist-info", *(["contrail_serving-0.2.0.dist-info"] if both else [])]
    for name in names:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "gone"), ""])
    if not both:
        require_one_distribution()
        return
    with pytest.raises(UserError, match="contrail-seg and contrail-serving are both installed") as caught:
        require_one_distribution()
    assert "pip uninstall contrail-serving" in str(caught.value) and "--force-reinstall" in str(caught.value)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as `make wheel-serving` does."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["make", "--no-print-directory", "-o", ".venv/.installed", "wheel-serving", f"DIST={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    (path,) = folder.glob("contrail_serving-*.whl")
    return path


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """A new environment with the wheel and `NEEDED`; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", f"--python={folder / 'bin' / 'python'}", "install", "--quiet"]
    subprocess.run([*install, "--no-index", "--no-deps", str(wheel)], check=True, timeout=120)
    for name in NEEDED:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    return folder / "bin"


@pytest.fixture
def sound_engine(engine, models, photo):
    golden_of(models["network"](), file_sha256(engine), photo).save(golden_folder(engine))
    return engine


def run(program, *arguments, **options):
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}  # no PYTHONPATH
    command = [str(program), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, check=False, cwd="/", **options
    )


@pytest.mark.slow
def test_the_wheel_holds_the_package_serving_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources and "serving/py.typed" in names
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "serving" / "server" / "page").iterdir()}
    assert len(page) >= 3 and page <= names
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"serving"}
    assert "Requires-Dist: onnxruntime-gpu[cuda,cudnn]" in metadata and "# Serving" in metadata


@pytest.mark.slow
def test_it_is_used_in_a_fresh_environment(fresh, sound_engine, photo, tmp_path):
    Image.fromarray(photo(40, 60)).save(tmp_path / "a.png")
    done = run(fresh / "contrail", "infer", tmp_path / "a.png", "--engine", sound_engine, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "out" / "a.png")).shape == (40, 60)
    done = run(fresh / "contrail", "selftest", sound_engine)
    assert done.returncode == 0 and ": pass" in done.stdout, done.stderr + done.stdout
    assert run(fresh / "contrail", "inspect", sound_engine).returncode == 0
    done = run(fresh / "contrail", "verify-card", sound_engine.parent)  # a test engine has neither card nor statement
    assert done.returncode == 2 and "MODEL_CARD.intoto.json: no such file" in done.stderr
    done = run(fresh / "contrail", "--version")
    assert done.stdout.strip() == f"contrail-serving {ALONE['version']}"


@pytest.mark.slow
def test_what_is_not_in_it_is_named(fresh):
    done = run(fresh / "contrail", "check", "model.onnx")
    assert done.returncode == 2 and "pip install contrail-seg" in done.stderr and "Traceback" not in done.stderr
    done = run(fresh / "contrail", "serve", "model.onnx")
    assert done.returncode == 2 and "pip install 'contrail-serving[server]'" in done.stderr
    done = run(fresh / "python", "-c", "import torch")
    assert done.returncode == 1, "the environment is not as fresh as it should be"
