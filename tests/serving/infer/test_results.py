"""What the command writes and says of every image, the same for any number of threads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError
from serving.contract.manifest import OutputSpec, read_sidecar
from serving.engines.predictor import Predictor
from serving.infer import main
from tests.serving.infer.outputs import files, read_mask, records_of


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


def test_names_that_the_legend_cannot_draw_are_said(build_engine, manifest, folder, tmp_path, capsys):
    path = build_engine(tmp_path / "e", None, dataclasses.replace(manifest, class_names=("road", "r\u00fce", "\u7a7a")))
    output = tmp_path / "out"
    assert main([str(folder / "a.png"), "--engine", str(path), "--output", str(output), "--legend"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"note: 2 names in {output}/legend.png by number, since its font has no such characters: 1 r"
    )


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


def test_runtime_options_and_tiles_are_handed_on(engine, folder, tmp_path):
    arguments = [str(folder / "a.png"), "--engine", str(engine), "--output", str(tmp_path / "out"), "--threads", "1"]
    assert main([*arguments, "--option", "spinning=false", "--option", "optimization=basic"]) == 0
    assert main([*arguments, "--tile", "32x32", "--overlap", "8"]) == 0


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
