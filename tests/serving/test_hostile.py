"""A folder of hostile files: all sound images are done, all others named, and nothing hangs or shows a traceback."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import shown
from tests.serving.hostile import make


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile") / "photos"
    return root, *make(root)


def run(engine, root, output, *options):
    command = [sys.executable, "-m", "serving.infer", str(root), "--engine", str(engine), "--output", str(output)]
    return subprocess.run([*command, *options], capture_output=True, timeout=240, check=False)


@pytest.mark.parametrize(
    "options", [(), ("--threads", "3", "--batch", "4"), ("--runtime", "openvino", "--threads", "2")]
)
def test_all_sound_images_are_done_and_all_others_are_named(engine, hostile, tmp_path, options):
    root, good, bad, left_out = hostile
    assert len(good) + len(bad) + len(left_out) >= 80
    done = run(engine, root, tmp_path / "out", "--json", *options)
    error = done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in error, error
    records = {json.loads(line)["path"].removeprefix(f"{root}/"): json.loads(line) for line in done.stdout.splitlines()}
    assert set(records) == {*good, *bad}
    assert {name for name, record in records.items() if record["status"] == "done"} == set(good)
    for name, size in good.items():
        with Image.open(records[name]["results"]["mask"]) as mask:
            assert (mask.height, mask.width) == size == (records[name]["height"], records[name]["width"]), name
            assert np.asarray(mask).max() < 3
    lines = error.splitlines()
    for name in bad:
        assert sum(line.startswith(f"error: {root}/{shown(name)}: ") for line in lines) == 1, name
    assert sum(line.startswith("error: ") for line in lines) == len(bad)
    assert sum(int(line.split()[1]) for line in lines if " left out, " in line) == len(left_out)


def test_a_terminal_of_another_encoding_is_told_all_the_same(engine, hostile, tmp_path, monkeypatch):
    root, good, bad, _ = hostile
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:strict")
    monkeypatch.setenv("LC_ALL", "C")
    done = run(engine, root, tmp_path / "out")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert done.stdout.startswith(f"{len(good)} of {len(good) + len(bad)} images in ".encode())
    assert all(byte < 128 for byte in done.stderr) and b"\x1b" not in done.stderr
