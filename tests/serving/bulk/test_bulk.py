"""`contrail bulk`: what it refuses without Ray, and, in the environment of `make bulk`, what it does with it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.bulk.__main__ import FAILED_NAME, main
from serving.bulk.work import Task
from serving.contract.errors import UnavailableError, UserError
from serving.engines.predictor import Predictor
from serving.images.image_io import read_image

ROOT = Path(__file__).parent.parent.parent.parent
PYTHON = ROOT / ".bulk" / "bin" / "python"

with_ray = pytest.mark.skipif(not PYTHON.exists(), reason="Ray is not here: `make bulk` installs it (700 MB)")


def test_without_ray_it_says_what_to_install(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["--engine", str(engine), "--input", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(UnavailableError, match=r"not installed: ray, pyarrow; pip install '.*\[bulk\]'"):
        main(arguments)
    with pytest.raises(UserError, match=r"--actors: expected at least 1, got 0\n--batch: expected at least 1, got -1"):
        main([*arguments, "--actors", "0", "--batch", "-1"])
    assert not (tmp_path / "out").exists()


def test_results_of_another_engine_or_of_other_settings_are_not_taken_for_done():
    task = {"engine": "e", "sha256": "a", "manifest": "{}", "runtime": None, "options": {}}
    task |= {"input": "i", "output": "o", "max_pixels": 9}
    run = Task(**task).run
    for name, value, same in (
        *(("sha256", "b", False), ("runtime", "openvino", False), ("options", {"threads": 2}, False)),
        ("manifest", '{"palette": []}', False),
        *(("input", "j", False), ("engine", "elsewhere", True), ("output", "moved", True), ("max_pixels", 8, True)),
    ):
        assert (Task(**task | {name: value}).run == run) is same, name


def command(engine, source, target, *more):
    named = ["--engine", str(engine), "--input", str(source), "--output", str(target)]
    return [str(PYTHON), "-m", "serving.bulk", *named, *more]


def bulk(engine, source, target, *more):
    return subprocess.run(
        command(engine, source, target, *more),
        capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=environment(),
    )  # fmt: skip


def environment():
    return {
        **os.environ,
        "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "RAY_TMPDIR": scratch(),
    }


@cache
def scratch():
    """Where Ray keeps its logs and sockets, whose names have to be short."""
    folder = tempfile.mkdtemp(prefix="ray-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def pictures(folder, photo, count, height=64, width=96):
    for index in range(count):
        path = folder / f"{index % 3}" / f"{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(height, width, index)).save(path)
    return sorted(folder.rglob("*.png"))


def require_masks(engine, source, target, paths):
    with Predictor(engine, options={"threads": 1}) as predictor:
        for path in paths:
            mask = np.asarray(Image.open(target / f"{path.relative_to(source)}.png"))
            np.testing.assert_array_equal(mask, predictor.predict(read_image(path)), err_msg=str(path))


def descendants(pid):
    """pid -> command line of every process below one."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                lines[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except (OSError, IndexError):
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {each: lines[each] for each in found - {pid} if each in lines}


@with_ray
@pytest.mark.slow
def test_masks_are_those_of_the_engine_and_a_second_run_goes_on_with_what_is_left(engine, photo, tmp_path):
    source, target = tmp_path / "in", tmp_path / "in" / "masks"  # results below the input are no input
    paths = pictures(source, photo, 20)
    (source / "0" / "000.png").rename(source / "0" / "_MG\n0.png")  # as cameras begin names, and nobody ends them
    paths = sorted(source.rglob("*.png"))
    (source / "bad.jpg").write_bytes(b"no image")
    (source / ".hidden.png").write_bytes(paths[0].read_bytes())
    (source / "0" / "back").symlink_to(source)
    (source / os.fsdecode(b"\xff.png")).write_bytes(paths[0].read_bytes())
    first = bulk(engine, source, target, "--actors", "2", "--batch", "3")
    assert first.returncode == 1 and "20 of 22 images" in first.stdout, first.stderr
    assert first.stderr.count("error: ") == 2 and "error: bad.jpg: " in first.stderr and "Traceback" not in first.stderr
    assert "error: \\xff.png: its name is no UTF-8" in first.stderr and "1 left out, hidden" in first.stderr
    failed = [json.loads(line)["image"] for line in (target / FAILED_NAME).read_text().splitlines()]
    assert failed == ["bad.jpg", "\udcff.png"]
    require_masks(engine, source, target, paths)
    (source / os.fsdecode(b"\xff.png")).unlink()
    (target / "0" / "003.png.png").unlink()
    kept = (target / "1" / "001.png.png").stat().st_mtime_ns
    Image.fromarray(photo(64, 96, 99)).save(source / "bad.jpg")
    Image.fromarray(photo(64, 96, 98)).save(source / "2" / "002.png")  # another image under an old name
    (source / "copied.png").write_bytes((target / "1" / "001.png.png").read_bytes())
    second = bulk(engine, source, target)
    assert second.returncode == 0 and "21 of 21 images" in second.stdout, second.stderr
    assert "22 images, 18 of them done before" in second.stderr
    assert "1 left out, results of an earlier run: copied.png" in second.stderr
    assert (target / "1" / "001.png.png").stat().st_mtime_ns == kept
    assert (target / FAILED_NAME).read_text() == "" and len(list(target.glob("_done/*.json"))) == 2
    require_masks(engine, source, target, [*paths, source / "bad.jpg"])


# What a decoder does that the operating system ends, as far as a test can have one.
POISON = """
import os, serving.bulk.work as work
decode = work.decode_image
def decode_image(file, name, **limits):
    return os.kill(os.getpid(), 9) if "poison" in name else decode(file, name, **limits)
work.decode_image = decode_image
"""


@with_ray
@pytest.mark.slow
def test_an_image_that_kills_its_workers_is_listed_and_loses_no_other(engine, photo, tmp_path, monkeypatch):
    source, target = tmp_path / "in", tmp_path / "out"
    paths = pictures(source, photo, 6)
    (source / "poison.png").write_bytes(paths[0].read_bytes())
    (tmp_path / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    done = bulk(engine, source, target, "--batch", "3")
    assert done.returncode == 3 and "6 of 7 images" in done.stdout, done.stderr
    assert "error: poison.png: every worker that had it in hand died" in done.stderr and "Traceback" not in done.stderr
    require_masks(engine, source, target, paths)


@with_ray
@pytest.mark.slow
def test_a_run_that_is_ended_leaves_no_process_and_goes_on(engine, photo, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    paths = pictures(source, photo, 200, 256, 384)
    with subprocess.Popen(
        command(engine, source, target, "--actors", "1", "--batch", "2"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    ) as process:  # fmt: skip
        try:
            while process.poll() is None and len(list(target.glob("_done/*.json"))) < 2:
                time.sleep(0.02)
            below = set(descendants(process.pid))
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 143 and "images are not done; the same command goes on" in errors, errors
    assert "Traceback" not in errors
    until = time.monotonic() + 60  # what was told to end does so in a moment
    while (left := [pid for pid in below if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left
    done = bulk(engine, source, target)
    assert done.returncode == 0 and "200 of 200 images" in done.stdout, done.stderr
    assert ", 0 of them done before" not in done.stderr
    require_masks(engine, source, target, paths)


@with_ray
@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_image(engine, photo, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    paths = pictures(source, photo, 240, 256, 384)
    with subprocess.Popen(
        command(engine, source, target, "--actors", "2", "--batch", "4"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    ) as process:  # fmt: skip
        try:
            while process.poll() is None and len(list(target.glob("_done/*.json"))) < 3:
                time.sleep(0.02)
            workers = [pid for pid, line in descendants(process.pid).items() if "ray::MapWorker" in line]
            assert workers, "the run was over before a worker could be killed"
            os.kill(workers[0], signal.SIGKILL)
            done_when_killed = len(list(target.glob("_done/*.json")))
            output, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert done_when_killed < 60, "or nothing was left to lose"
    assert process.returncode == 0 and "240 of 240 images" in output, errors
    require_masks(engine, source, target, paths)


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--input", "/gone"), "--input /gone: expected a folder, got nothing there"),
        (("--input", "nothing://x"), "expected a path, or a URI such as s3://bucket/folder"),
        (("--engine", "/gone.onnx"), "no such file"),
        (("--option", "treads=2"), "did you mean 'threads'"),
        (("--output", "IN"), "expected another folder than --input"),
        (("--output", "IN/0/000.png"), "cannot be written"),
        (("--output", "/proc"), "cannot be written"),
        (("--output", "IN/.."), "would be written among the images"),
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_mistakes_are_refused_in_one_line_before_anything_begins(engine, photo, tmp_path, more, said):
    source, target = tmp_path / "in", tmp_path / "out"
    pictures(source, photo, 2)
    (source / "in").mkdir()
    (source / "in" / "c.png").write_bytes((source / "0" / "000.png").read_bytes())  # tmp_path/in/c.png.png
    done = bulk(engine, source, target, *(each.replace("IN", str(source)) for each in more))
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2 and not list(tmp_path.rglob("*.png.png"))
