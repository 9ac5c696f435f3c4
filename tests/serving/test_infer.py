"""The command: masks, overlays, one line per bad image, nothing overwritten, nothing heavy imported."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.manifest import OutputSpec, read_sidecar
from serving.engines.predictor import Predictor
from serving.infer import main


@pytest.fixture
def folder(tmp_path, photo):
    images = tmp_path / "images"
    (images / "night").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "b.png", "night/a.png"]):
        Image.fromarray(photo(40, 60, seed)).save(images / name)
    return images


def read_mask(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_folder_gives_one_mask_per_image_in_the_same_tree(engine, folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert main([str(folder), "--engine", str(engine), "--output", str(output), "--overlay", "--legend"]) == 0
    expected = [f"{name}{ending}" for name in ("a", "b", "night/a") for ending in (".overlay.jpg", ".png")]
    assert files(output) == sorted([*expected, "legend.png"])
    with Predictor(engine) as predictor:
        for name in ("a.png", "b.png", "night/a.png"):
            image = np.asarray(Image.open(folder / name))
            np.testing.assert_array_equal(read_mask(output / name), predictor.predict(image))
    assert "3 of 3 images" in capsys.readouterr().out


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


def test_same_names_get_distinct_files_or_a_clear_error(engine, folder, tmp_path, photo):
    Image.fromarray(photo(8, 8)).save(folder / "a.bmp")
    output = tmp_path / "out"
    assert main([str(folder), "--engine", str(engine), "--output", str(output)]) == 0
    assert files(output) == ["a.bmp.png", "a.png.png", "b.png", "night/a.png"]
    both = [str(folder / "a.png"), str(folder / "night" / "a.png")]
    with pytest.raises(UserError, match=r"names clash, nothing was written.*\n.*a\.png\.png: would be written for"):
        main([*both, "--engine", str(engine), "--output", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_no_image_is_overwritten_by_its_mask(engine, folder):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for images in ([folder / "a.png"], [folder / "a.png", folder / "b.png"]):
        with pytest.raises(UserError, match=r"a\.png: is an image to read; choose another --output"):
            main([*map(str, images), "--engine", str(engine), "--output", str(folder)])
    link = folder.parent / "link"
    link.symlink_to(folder)
    with pytest.raises(UserError, match="is an image to read"):
        main([str(folder / "a.png"), "--engine", str(engine), "--output", str(link)])
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == before


def test_results_inside_the_folder_are_not_read_again(engine, folder):
    arguments = [str(folder), "--engine", str(engine), "--output", str(folder / "masks")]
    assert main(arguments) == main(arguments) == 0
    assert files(folder / "masks") == ["a.png", "b.png", "night/a.png"]


def test_one_image_named_twice_is_done_once(engine, folder, tmp_path, capsys):
    assert main([str(folder), str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 0
    assert "3 of 3 images" in capsys.readouterr().out


def test_results_beside_the_images_are_not_read_by_the_next_run(engine, tmp_path, photo, capsys):
    """The output folder is the image folder, run twice; then a third run reads the folder into another one."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed in range(3):
        Image.fromarray(photo(40, 60, seed)).save(root / f"a{seed}.jpg")
    arguments = [str(root), "--engine", str(engine), "--overlay", "--legend"]
    assert main([*arguments, "--output", str(root)]) == 0
    once = files(root)
    assert len(once) == 3 + 3 + 3 + 1
    capsys.readouterr()
    assert main([*arguments, "--output", str(root)]) == 0
    captured = capsys.readouterr()
    assert files(root) == once and "3 of 3 images" in captured.out
    assert "note: 7 left out, a result of an earlier run: " in captured.err
    (root / "a1.jpg").unlink()
    (root / "a2.jpg").unlink()
    (root / "a2.overlay.jpg").unlink()
    (root / "a2.png").rename(root / "lonely.png")  # nothing in its name tells a result, only what is in it
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert files(tmp_path / "out") == ["a0.overlay.jpg", "a0.png", "legend.png"]
    captured = capsys.readouterr()
    assert "1 of 1 images" in captured.out
    assert f"note: 1 left out, a result of an earlier run: {root}/lonely.png" in captured.err


def test_results_of_another_run_are_named(engine, folder, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = [str(folder), "--engine", str(engine), "--output", str(output)]
    assert main([*arguments, "--overlay"]) == 0
    (folder / "b.png").unlink()
    (folder / "a.png").write_bytes(b"damaged")
    capsys.readouterr()
    assert main([*arguments, "--option", "optimization=basic"]) == 1
    error = capsys.readouterr().err
    assert "note: 4 results of an earlier run are in" in error and "not of this one" in error
    assert f"({output / 'a.png'}: still there, of an earlier run)" in error
    # The same engine and settings: what stands there is what would be written.
    (output / "b.png").unlink()
    for path in output.rglob("*.overlay.jpg"):
        path.unlink()
    assert main([*arguments, "--option", "optimization=basic"]) == 1
    assert "not of this one" not in capsys.readouterr().err


def test_links_and_names_of_all_kinds_give_a_result_each(engine, tmp_path, photo, capsys):
    root, store = tmp_path / "photos", tmp_path / "store"
    for folder in (root, store / "day2"):
        folder.mkdir(parents=True)
    for seed, name in enumerate(["here.jpg", "é.png", "e\u0301.png", "new\nline.png"]):
        Image.fromarray(photo(16, 24, seed)).save(root / name)
    Image.fromarray(photo(16, 24, 9)).save(store / "1f00", "PNG")
    Image.fromarray(photo(16, 24, 8)).save(store / "day2" / "d.jpg")
    (root / "b.jpg").symlink_to(store / "1f00")
    (root / "c.jpg").symlink_to(store / "1f00")
    (root / "day2").symlink_to(store / "day2")
    Image.fromarray(photo(16, 24, 7)).save(root / "x.jpg")
    (root / "x.jpg").rename(root / "caf\udce9.jpg")
    (root / "bad\udcff\x1b[31m.jpg").write_bytes(b"no image")
    (root / "left.txt").touch()
    command = [
        sys.executable,
        "-m",
        "serving.infer",
        str(root),
        "--engine",
        str(engine),
        "--output",
        str(tmp_path / "o\udce9"),
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert done.returncode == 1
    assert done.stdout.startswith(b"8 of 9 images in ") and b"o\\xe9" in done.stdout
    note, error = done.stderr.decode("ascii").splitlines()
    assert note == f"note: 1 left out, no image (.txt): {root}/left.txt"
    assert error.startswith(f"error: {root}/bad\\xff\\x1b[31m.jpg: a file that starts with")
    expected = ["b.png", "c.png", "caf\udce9.png", "day2/d.png", "e\u0301.png", "here.png", "new\nline.png", "é.png"]
    assert files(tmp_path / "o\udce9") == expected


def test_what_was_done_with_an_image_is_said(engine, tmp_path, photo, capsys):
    image = Image.fromarray(photo(16, 24))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.putalpha(100)
    image.save(tmp_path / "clear.png")
    assert (
        main(
            [
                str(tmp_path / "turned.jpg"),
                str(tmp_path / "clear.png"),
                "--engine",
                str(engine),
                "--output",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    error = capsys.readouterr().err
    assert f"note: 1 turned by its EXIF tag: {tmp_path}/turned.jpg" in error
    assert f"note: 1 transparency dropped, colours below it taken: {tmp_path}/clear.png" in error


def test_confidence_is_written_where_the_engine_gives_it(engine, build_engine, models, manifest, folder, tmp_path):
    arguments = [str(folder / "a.png"), "--output", str(tmp_path / "out"), "--confidence"]
    with pytest.raises(UserError, match="--confidence: the engine gives none"):
        main([*arguments, "--engine", str(engine)])
    both = dataclasses.replace(manifest, outputs=(OutputSpec(), OutputSpec("confidence", "confidence")))
    path = build_engine(tmp_path / "both", models["network"](confidence=True), both)
    assert main([*arguments, "--engine", str(path)]) == 0
    assert files(tmp_path / "out") == ["a.confidence.png", "a.png"]
    with Image.open(tmp_path / "out" / "a.confidence.png") as image:
        assert image.mode == "L" and image.size == (60, 40)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--opacity", "2"], "--opacity: expected in 0..1"),
        (["--tile", "big"], "--tile: expected HEIGHTxWIDTH"),
        (["--tile", "64x64", "--overlap", "64"], "overlap: expected in 0..63"),
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


def test_runtime_options_and_tiles_are_handed_on(engine, folder, tmp_path):
    arguments = [str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out"), "--threads", "1"]
    assert main([*arguments, "--option", "spinning=false", "--option", "optimization=basic"]) == 0
    assert main([*arguments, "--tile", "32x32", "--overlap", "8"]) == 0


ISOLATED = """
import sys
import time
from serving.infer import main
status = main(sys.argv[1:])
heavy = {"torch", "torchvision", "timm", "yaml", "dvc", "onnx", "scipy", "matplotlib", "rich", "pipeline", "export"}
print(status, sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_nothing_of_training_is_imported(engine, folder, tmp_path):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--overlay", "--legend"]
    done = subprocess.run([sys.executable, "-c", ISOLATED, *arguments], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["0 []"], done.stderr


def test_it_runs_from_a_copy_of_serving_alone(engine, folder, tmp_path):
    """Serving ships alone: copied away from the rest, with nothing else of the project on the path."""
    source = Path(sys.modules["serving.infer"].__file__).parent
    alone = tmp_path / "alone"
    for path in source.rglob("*.py"):
        target = alone / "serving" / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    check = "import sys, serving, runpy; assert serving.__file__.startswith(sys.argv[1]), serving.__file__\n"
    check += "sys.argv = ['infer', *sys.argv[2:]]; runpy.run_module('serving.infer', run_name='__main__')"
    arguments = [str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", check, str(alone), *arguments], cwd=alone, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == ["a.png"]


def test_a_mistake_exits_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "serving.infer", "x.png", "--engine", "gone.onnx", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gone.onnx: no such file") and done.stderr.count("\n") == 1


def records_of(captured):
    return [json.loads(line) for line in captured.out.splitlines()]


def test_json_is_one_line_per_image_in_the_order_of_the_images(engine, folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"no image")
    output = tmp_path / "out"
    arguments = [str(folder), "--engine", str(engine), "--output", str(output), "--threads", "3", "--json"]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    records = records_of(captured)
    assert [Path(record["path"]).name for record in records] == ["a.png", "b.png", "bad.png", "a.png"]
    assert [record["status"] for record in records] == ["done", "done", "failed", "done"]
    assert records[0]["engine_sha256"] == read_sidecar(engine).sha256
    assert (records[0]["height"], records[0]["width"]) == (40, 60)
    mask = read_mask(records[0]["results"]["mask"])
    assert records[0]["areas"]["red"] == pytest.approx((mask == 0).mean(), abs=1e-5)
    assert "problem" in records[2] and "3 of 4 images in" in captured.err
    assert main([*arguments, "--skip-existing"]) == 1
    assert [record["status"] for record in records_of(capsys.readouterr())] == [
        "skipped",
        "skipped",
        "failed",
        "skipped",
    ]


def test_skipping_is_said_and_does_what_is_missing(engine, folder, tmp_path, capsys):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--skip-existing"]
    assert main(arguments) == 0
    (tmp_path / "out" / "b.png").unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of 1 images in" in (out := capsys.readouterr().out) and "2 skipped, done before" in out
    assert main([*arguments, "--tile", "32x32", "--overlap", "0"]) == 0  # other settings: nothing of it counts
    assert "3 of 3 images in" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "4"], ["--threads", "3", "--batch", "2"]])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_masks_are_the_same_for_any_number_of_threads_and_any_batch(engine, tmp_path, photo, runtime, options):
    root = tmp_path / "images"
    root.mkdir()
    sizes = [(40, 60), (64, 64), (33, 90)]
    for index in range(12):
        Image.fromarray(photo(*sizes[index % 3], index)).save(root / f"{index:02}.png")
    arguments = [str(root), "--engine", str(engine), "--output", str(tmp_path / "out"), "--runtime", runtime]
    assert main([*arguments, *options]) == 0
    with Predictor(engine, runtime=runtime, options={"threads": 1}) as predictor:
        for index in range(12):
            expected = predictor.predict(photo(*sizes[index % 3], index))
            np.testing.assert_array_equal(read_mask(tmp_path / "out" / f"{index:02}.png"), expected)


def test_formats_lists_and_patterns_go_together(engine, folder, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{folder / 'night' / 'a.png'}\n")
    arguments = [str(folder / "?.png"), "--list", str(tmp_path / "list.txt"), "--engine", str(engine)]
    with pytest.raises(UserError, match="names clash"):  # the list's only image is a.png as well
        main([*arguments, "--output", str(tmp_path / "out")])
    (tmp_path / "list.txt").write_text(f"{folder / 'night' / 'a.png'}\n{folder / 'b.png'}\n")
    arguments += ["--format", "color,cutout", "--cutout", "green", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    names = [f"{name}{ending}" for name in ("a", "b", "night/a") for ending in (".color.png", ".cutout.png")]
    assert files(tmp_path / "out") == sorted(names)
    with pytest.raises(UserError, match="--cutout: no class pink; the engine has red, green, blue"):
        main([*arguments[:-4], "--cutout", "pink", "--output", str(tmp_path / "out")])


def test_images_beyond_the_limit_of_pixels_are_refused(engine, folder, tmp_path, capsys):
    arguments = [str(folder), "--engine", str(engine), "--output", str(tmp_path / "out"), "--max-pixels", "2399"]
    assert main(arguments) == 1
    assert capsys.readouterr().err.count("60x40 pixels; at most 2399 are read") == 3


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
