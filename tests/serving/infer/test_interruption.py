"""Runs that end early: by a signal, by a reader that goes away; and going on with what is left."""

import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from serving.infer import main
from tests.serving.infer.outputs import files


def test_skipping_is_said_and_does_what_is_missing(engine, folder, tmp_path, capsys):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--skip-existing"]
    assert main(arguments) == 0
    (tmp_path / "out" / "b.png").unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of 1 images in" in (out := capsys.readouterr().out) and "2 skipped, done before" in out
    assert main([*arguments, "--tile", "32x32", "--overlap", "0"]) == 0  # other settings: nothing of it counts
    assert "3 of 3 images in" in capsys.readouterr().out


SLOW = """
import sys, time
from serving.infer import main
from serving.engines.predictor import Predictor
segment = Predictor.segment
def slowly(self, images):
    time.sleep(0.3)
    return segment(self, images)
Predictor.segment = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_after_the_images_in_hand_and_says_how_to_go_on(engine, tmp_path, photo, number, status):
    root, output = tmp_path / "images", tmp_path / "out"
    root.mkdir()
    for index in range(40):
        Image.fromarray(photo(16, 16, index)).save(root / f"{index:02}.png")
    arguments = [str(root), "--engine", str(engine), "--output", str(output), "--threads", "2", "--batch", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(output.glob("*.png")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    written = files(output)
    assert process.returncode == status
    assert 1 <= len(written) < 40 and not list(output.rglob(".*"))
    assert f"{len(written)} of 40 images in" in out
    rest = 40 - len(written)
    assert error == f"error: interrupted, {rest} images were not begun; the same command with --skip-existing goes on\n"
    done = subprocess.run(
        [sys.executable, "-m", "serving.infer", *arguments, "--skip-existing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and f"{len(written)} skipped, done before" in done.stdout
    assert len(files(output)) == 40


def test_a_reader_that_goes_away_is_no_traceback(engine, folder, tmp_path):
    command = f"{sys.executable} -m serving.infer {folder} --engine {engine} --output {tmp_path / 'out'} --json | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and done.returncode in (0, 141)
