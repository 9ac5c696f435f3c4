"""What goes wrong costs a line and the status: bad images, a failing engine, no room, no memory, mistyped options."""

import subprocess
import sys

import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.engines.predictor import Predictor
from serving.infer import main
from tests.serving.infer.outputs import files


def test_bad_images_cost_one_line_each_and_the_status(engine, folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    arguments = [str(folder), str(tmp_path / "gone.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"error: {folder / 'broken.png'}: not a readable PNG image")
    assert lines[1].startswith(f"error: {tmp_path / 'gone.png'}: cannot be read")
    assert files(tmp_path / "out") == ["a.png", "b.png", "night/a.png"]
    assert "3 of 5 images" in captured.out


def test_an_engine_that_fails_on_one_image_names_it(engine, folder, tmp_path, capsys, monkeypatch):
    segment = Predictor.segment

    def fails_on_small(self, images):
        if images[0].shape[0] < 20:
            raise UserError("the engine ran out of memory")
        return segment(self, images)

    monkeypatch.setattr(Predictor, "segment", fails_on_small)
    Image.new("RGB", (9, 9)).save(folder / "small.png")
    assert main([str(folder), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err == f"error: {folder / 'small.png'}: the engine ran out of memory\n"


@pytest.mark.parametrize("output", ["file", "file/inside"])
def test_an_output_that_cannot_be_written_is_one_line_before_anything_is_begun(engine, folder, tmp_path, output):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*: cannot be written: "):
        main([str(folder), "--engine", str(engine), "--output", str(tmp_path / output), "--legend"])


SHORT_OF_ROOM = """
import resource, signal, sys
from serving.infer import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))  # no file may grow beyond
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_full_disk_ends_the_run_in_a_line_and_leaves_no_half_file(engine, tmp_path, photo):
    root = tmp_path / "images"
    root.mkdir()
    for seed in range(60):
        side = 600 if seed == 1 else 16
        Image.fromarray(photo(side, side, seed)).save(root / f"{seed:02}.png")
    command = [sys.executable, "-c", SHORT_OF_ROOM, str(root), "--engine", str(engine), "--output", str(tmp_path / "o")]
    done = subprocess.run([*command, "--threads", "2"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first == f"error: {tmp_path}/o/01.png: cannot be written: File too large"
    written = files(tmp_path / "o")
    assert "00.png" in written and "01.png" not in written and len(written) < 59
    rest = 59 - len(written)
    assert last.startswith(f"error: there is no room for results, {rest} images were not begun; ")
    assert f"{len(written)} of 60 images" in done.stdout


SHORT_OF_MEMORY = """
import resource, sys
from serving.infer import main
from serving.engines.predictor import Predictor
opened = Predictor.__init__
def open_and_limit(self, *arguments, **options):
    opened(self, *arguments, **options)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000, resource.RLIM_INFINITY))
Predictor.__init__ = open_and_limit
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux counts it")
def test_an_image_too_large_for_the_memory_is_one_line_and_the_next_one_is_done(engine, folder, tmp_path):
    Image.new("RGB", (7500, 7500)).save(folder / "aa.png", compress_level=1)  # 170 MB as pixels, 675 MB as floats
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(folder), "--engine", str(engine), "--threads", "1"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {folder}/aa.png: ") and "--tile" in line
    assert files(tmp_path / "out") == ["a.png", "b.png", "night/a.png"]
    tiled = [*command, "--output", str(tmp_path / "tiled"), "--tile", "512x512"]
    done = subprocess.run(tiled, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--opacity", "2"], "--opacity: expected in 0..1"),
        (["--tile", "big"], "--tile: expected HEIGHTxWIDTH"),
        (["--threads", "100000"], "--threads: expected at most 1024, got 100000"),
        (["--batch", "99999999999999999999"], "--batch: expected at most 1024, got 99999999999999999999"),
        (
            ["--overlap", "-1", "--batch", "0"],
            "--batch: expected at least 1, got 0\n--overlap: expected at least 0, got -1",
        ),
        (["--cutout", "red"], "--cutout red: no cutout is written; add --format cutout"),
        (["--format", "mask,"], "--format mask,: unknown format ''"),
        (["--tile", "1x1", "--overlap", "0"], "tile: expected at least 32x32"),
        (["--tile", "64x64", "--overlap", "64"], "overlap: expected in 0..32 (at most half a tile), got 64"),
        (["--runtime", "magic"], "unknown runtime 'magic'"),
        (["--provider", "tpu"], "options of onnxruntime.provider: expected one of cpu, cuda"),
        (["--option", "threads"], "--option threads: expected KEY=VALUE"),
        (["--option", "speed=9"], "options of onnxruntime.speed: unknown key"),
    ],
)
def test_mistyped_options_are_one_clear_error(engine, folder, tmp_path, options, expected):
    with pytest.raises(UserError) as caught:
        main([str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), *options])
    assert expected in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_mistake_exits_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "serving.infer", "x.png", "--engine", "gone.onnx", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gone.onnx: no such file") and done.stderr.count("\n") == 1


def test_images_beyond_the_limit_of_pixels_are_refused(engine, folder, tmp_path, capsys):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--max-pixels", "2399"]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("60x40 pixels; at most 2399 are read") == 3


def test_an_image_too_wide_for_its_overlay_costs_one_line_and_the_next_one_is_done(engine, folder, tmp_path, capsys):
    Image.new("RGB", (65501, 1)).save(folder / "aa.png")
    assert main([str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--overlay"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}/out/aa.overlay.jpg: cannot be written: 65501x1 pixels")
    assert "b.overlay.jpg" in files(tmp_path / "out") and "aa.png" in files(tmp_path / "out")


def test_images_may_stand_before_between_and_behind_options(engine, folder, tmp_path):
    (folder / "night" / "a.png").rename(folder / "night" / "c.png")
    first, last = str(folder / "a.png"), str(folder / "b.png")
    assert main([first, "--engine", str(engine), last, "--output", str(tmp_path / "out"), str(folder / "night")]) == 0
    assert files(tmp_path / "out") == ["a.png", "b.png", "c.png"]


def test_behind_two_hyphens_stand_images_whatever_they_begin_with(engine, folder, tmp_path, monkeypatch):
    (folder / "b.png").rename(folder / "-x.png")
    monkeypatch.chdir(folder)
    options = ["--engine", str(engine), "--output", str(tmp_path / "out"), "--"]
    assert main([*options, "-x.png"]) == 0
    assert files(tmp_path / "out") == ["-x.png"]
    assert main(["a.png", *options, "-x.png"]) == 0
    assert files(tmp_path / "out") == ["-x.png", "a.png"]


def test_an_output_without_a_name_is_not_the_folder_at_hand(engine, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    with pytest.raises(UserError, match="--output: expected the name of a folder, got nothing"):
        main([str(folder), "--engine", str(engine), "--output", ""])
    assert files(tmp_path) == before
