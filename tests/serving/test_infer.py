"""The command: masks, overlays, one line per bad image, nothing overwritten, nothing heavy imported."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.manifest import OutputSpec
from serving.images.image_io import list_images
from serving.infer import main, plan
from serving.predictor import Predictor


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
    assert main([str(folder), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == f"error: {folder / 'small.png'}: the engine ran out of memory\n"


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


def test_overlays_and_legends_take_part_in_the_clash_check(tmp_path):
    names = ["a.png", "a.overlay.jpg", "legend.jpg"]
    images = list_images([tmp_path / name for name in names])
    legend = tmp_path / "out" / "legend.png"
    with pytest.raises(UserError, match=r"legend\.png: would be written for the legend and for .*legend\.jpg"):
        plan(images, tmp_path / "out", overlays=True, confidences=True, legend=legend)
    jobs = plan(images, tmp_path / "out", overlays=True, confidences=True, legend=None)
    results = [path for job in jobs for path in (job.mask, job.overlay, job.confidence)]
    assert len(set(results)) == 9


def test_results_inside_the_folder_are_not_read_again(engine, folder):
    arguments = [str(folder), "--engine", str(engine), "--output", str(folder / "masks")]
    assert main(arguments) == main(arguments) == 0
    assert files(folder / "masks") == ["a.png", "b.png", "night/a.png"]


def test_one_image_named_twice_is_done_once(engine, folder, tmp_path, capsys):
    assert main([str(folder), str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out")]) == 0
    assert "3 of 3 images" in capsys.readouterr().out


def test_confidence_is_written_where_the_engine_gives_it(engine, build_engine, models, manifest, folder, tmp_path):
    arguments = [str(folder / "a.png"), "--output", str(tmp_path / "out"), "--confidence"]
    with pytest.raises(UserError, match=r"--confidence: .* gives none"):
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
