"""Models from elsewhere, run as they are described: wrong masks or missing words never pass in silence."""

import dataclasses
import itertools
import shlex

import numpy as np
import onnx
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, Manifest, OutputSpec, sidecar_path
from serving.engines.foreign.described import describe, parse_numbers, parse_size, voc_palette
from serving.engines.foreign.onnx_file import read_onnx
from serving.engines.predictor import Predictor
from serving.infer import main

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


@pytest.fixture
def save(tmp_path, models):
    def build(**options):
        path = tmp_path / "other.onnx"
        onnx.save(models["color"](**options), path)
        return path

    return build


@pytest.mark.parametrize(
    ("layout", "dtype", "color", "content"),
    [*itertools.product(["NCHW", "NHWC"], ["float32", "float16"], ["RGB", "BGR"], ["logits", "probabilities", "mask"])],
)
def test_every_described_contract_gives_the_known_mask(save, photo, layout, dtype, color, content):
    path = save(layout=layout, dtype=dtype, color=color, content=content)
    manifest = describe(read_onnx(path), path, content=content, classes="red,green,blue", color=color, **IMAGENET)
    image = photo(40, 70)
    with Predictor(path, manifest=manifest) as predictor:
        mask = predictor.predict(image)
    disagreement = mask != image.argmax(2)
    channels = np.sort(image.astype(int), axis=2)
    assert not disagreement[channels[..., 2] - channels[..., 1] > 1].any()  # float16 may blur neighbouring values


def test_uint8_nhwc_from_elsewhere_and_nhwc_logits(save, photo):
    path = save(layout="NHWC", dtype="uint8", normalised=False, output_layout="NHWC")
    manifest = describe(read_onnx(path), path, content="logits", classes="3", output_layout="NHWC")
    image = photo(33, 21)
    with Predictor(path, manifest=manifest) as predictor:
        np.testing.assert_array_equal(predictor.predict(image), image.argmax(2))


def test_sigmoid_gives_background_and_foreground(save, photo):
    path = save(content="sigmoid")
    manifest = describe(read_onnx(path), path, content="sigmoid", classes="other,red", **IMAGENET)
    image = photo(32, 64)
    image[image == 127] = 120
    with Predictor(path, manifest=manifest) as predictor:
        np.testing.assert_array_equal(predictor.predict(image), image[..., 0] > 127)


def test_a_fixed_size_and_batch_are_met(save, photo):
    path = save(size=(48, 80), batch=2, reduce=4)
    manifest = describe(read_onnx(path), path, content="logits", classes=None, **IMAGENET)
    assert manifest.input.resize == (48, 80) and manifest.num_classes == 3
    images = [photo(96, 160, seed) for seed in range(3)]
    with Predictor(path, manifest=manifest) as predictor:
        masks = predictor.predict_batch(images)
        assert [mask.shape for mask in masks] == [(96, 160)] * 3
        np.testing.assert_array_equal(masks[2], predictor.predict(images[2]))


def test_a_wrong_description_changes_the_mask(save, photo):
    """The models undo exactly the normalisation they are described with: this is what makes the tests above tell."""
    path = save()
    right = describe(read_onnx(path), path, content="logits", classes="3", **IMAGENET)
    image = photo(64, 64)
    expected = image.argmax(2)
    raw = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    for change in ({"color": "BGR"}, raw, {"mean": (0.0, 200.0, 0.0)}, {"std": (58.0, 200.0, 57.0)}):
        wrong = dataclasses.replace(right, input=dataclasses.replace(right.input, **change))
        with Predictor(path, manifest=wrong) as predictor:
            assert (predictor.predict(image) != expected).mean() > 0.01, change


def test_everything_that_is_missing_is_said_at_once(save):
    path = save(layout="NHWC", size=(3, 3), batch=3)
    with pytest.raises(UserError) as caught:
        describe(read_onnx(path), path, content=None, classes=None, resize=(9, 9))
    assert "--output-content: say what 'result' holds" in str(caught.value)
    path = save(content="mask", output_layout="NHW")
    with pytest.raises(UserError, match="--classes: cannot be told"):
        describe(read_onnx(path), path, content="mask", classes=None)
    with pytest.raises(UserError, match=r"--output-name nothing: the model has result"):
        describe(read_onnx(path), path, content="mask", classes="3", output_name="nothing")
    with pytest.raises(UserError) as caught:
        describe(
            read_onnx(path), path, content="mask", classes="3", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        )
    assert "mean: expected in 0..255 units (0.485 of 0..1 images is 123.675)" in str(caught.value)
    assert "std: expected in 0..255 units" in str(caught.value)
    with pytest.raises(UserError, match="expected 1 to 256 names"):
        describe(read_onnx(path), path, content="mask", classes="1000000000", **IMAGENET)


def test_a_float_input_without_mean_and_std_is_refused_with_the_usual_ones(save):
    """Raw 0..255 fed into a network that wants normalised images: masks that look right and are not."""
    path = save()
    for given, missing in (
        ({}, "--mean and --std: "),
        ({"mean": (0, 0, 0)}, "--std: "),
        ({"std": (1, 1, 1)}, "--mean: "),
    ):
        with pytest.raises(UserError) as caught:
            describe(read_onnx(path), path, content="logits", classes="3", **given)
        assert f"\n  {missing}the model takes float32 images and does not say how" in str(caught.value)
        assert "--mean=123.675,116.28,103.53 --std=58.395,57.12,57.375 (ImageNet's" in str(caught.value)
        assert "--mean=0,0,0 --std=1,1,1 (0..255, where the graph" in str(caught.value)
    describe(read_onnx(path), path, content="logits", classes="3", mean=(0, 0, 0), std=(1, 1, 1))
    uint8 = save(dtype="uint8", normalised=False)
    assert describe(read_onnx(uint8), uint8, content="logits", classes="3").input.mean is None


def test_an_output_whose_last_axis_matches_the_classes_is_not_read_as_nchw(tmp_path, models, photo):
    """As a MediaPipe model has it: image [1,144,256,3], output [1,144,256,2]."""
    path = tmp_path / "selfie.onnx"
    model = models["color"](layout="NHWC", size=(144, 256), batch=1, output_layout="NHWC")
    onnx.save(model, path)
    for classes in ("3", None):
        manifest = describe(read_onnx(path), path, content="logits", classes=classes, **IMAGENET)
        assert manifest.mask_output.layout == "NHWC" and manifest.num_classes == 3
    image = photo(144, 256)
    with Predictor(path, manifest=manifest) as predictor:
        assert (predictor.predict(image) != image.argmax(2)).mean() < 0.001
    with pytest.raises(UserError, match=r"has shape \[1, 144, 256, 3\] .* is its layout NHWC\?"):
        wrong = describe(read_onnx(path), path, content="logits", classes="3", output_layout="NCHW", **IMAGENET)
        Predictor(path, manifest=wrong).predict(image)


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        ({"output_layout": "NCHW"}, "NCHW"),  # all axes open: as the input
        ({"output_layout": "NCHW", "size": (64, 96), "batch": 1}, "NCHW"),
        ({"output_layout": "NHWC", "size": (64, 96), "batch": 1}, "NHWC"),
        ({"output_layout": "NHWC", "layout": "NHWC"}, "NHWC"),
        ({"output_layout": "NHWC", "size": (64, 96), "reduce": 4}, "NHWC"),
        ({"output_layout": "NHW", "content": "mask"}, "NHW"),
        ({"output_layout": "NHWC", "content": "mask"}, "NHWC"),
        ({"output_layout": "NHWC", "content": "sigmoid"}, "NHWC"),
        ({"output_layout": "NCHW", "size": (3, 3), "batch": 1}, None),
    ],
)
def test_the_layout_of_an_output_is_told_by_its_shape_or_asked_for(save, options, layout):
    path = save(**options)
    described = {"content": options.get("content", "logits"), "classes": "2" if "sigmoid" in str(options) else "3"}
    if layout is None:
        with pytest.raises(UserError, match=r"--output-layout: cannot be told from the shape \[1, 3, 3, 3\]"):
            describe(read_onnx(path), path, input_layout="NCHW", **described, **IMAGENET)
    else:
        assert describe(read_onnx(path), path, **described, **IMAGENET).mask_output.layout == layout


def test_several_foregrounds_are_masks_of_their_own_and_one_with_a_background(tmp_path, models, photo):
    path = tmp_path / "labels.onnx"
    onnx.save(models["color"](content="sigmoids"), path)
    manifest = describe(read_onnx(path), path, content="sigmoid", classes="red,green,blue", **IMAGENET)
    assert manifest.class_names == ("background", "red", "green", "blue") and manifest.overlapping
    assert describe(read_onnx(path), path, content="sigmoid", classes=None, **IMAGENET).num_classes == 4
    image = photo(40, 70)
    image[image == 127] = 120
    image[np.abs(image.astype(int) - 127) < 3] = 100
    expected = np.where(image > 127, image.argmax(2)[..., None] + 1, 0).max(2)
    with (
        Predictor(path, manifest=manifest) as whole,
        Predictor(path, manifest=manifest, tile=(32, 32), overlap=8) as tiled,
    ):
        (segmentation,) = whole.segment([image])
        np.testing.assert_array_equal(segmentation.layers, np.where(image > 127, 255, 0))
        channels = np.sort(image.astype(int), axis=2)
        clear = channels[..., 2] - channels[..., 1] > 1
        np.testing.assert_array_equal(segmentation.mask[clear], expected[clear])
        (parts,) = tiled.segment([image])
        np.testing.assert_array_equal(parts.layers, segmentation.layers)


def test_models_that_take_no_image_or_give_several_outputs_are_explained(tmp_path, models, save):
    path = tmp_path / "two.onnx"
    onnx.save(models["network"](confidence=True), path)
    with pytest.raises(UserError, match="several outputs, choose one of mask, confidence"):
        describe(read_onnx(path), path, content="mask", classes="3")
    assert describe(read_onnx(path), path, content="mask", classes="3", output_name="mask").mask_output.name == "mask"
    model = models["color"]()
    model.graph.input.append(onnx.helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [2]))
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"expected one image of four axes, the model has pixels .*, size \[2\]"):
        describe(read_onnx(path), path, content="logits", classes="3")


def test_sizes_and_numbers_are_read_or_refused():
    assert parse_size("--tile", "512x1024") == (512, 1024)
    assert parse_numbers("--mean", "1,2.5,-3") == (1.0, 2.5, -3.0)
    assert parse_size("--tile", None) is None and parse_numbers("--mean", None) is None
    for text in ("512", "0x5", "5x-1", "axb", "1x2x3", "", "٣x٣"):
        with pytest.raises(UserError, match="--tile: expected HEIGHTxWIDTH"):
            parse_size("--tile", text)
    for text in ("1,2", "a,b,c", ""):
        with pytest.raises(UserError, match="--mean: expected three numbers"):
            parse_numbers("--mean", text)


def test_the_palette_is_pascals():
    assert voc_palette(4) == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert voc_palette(256)[255] == (224, 224, 192)
    assert len(set(voc_palette(256))) == 256


def run_infer(path, tmp_path, photo, *options):
    from PIL import Image

    Image.fromarray(photo(32, 32)).save(tmp_path / "photo.png")
    return main([str(tmp_path / "photo.png"), "--engine", str(path), "--output", str(tmp_path / "out"), *options])


def test_the_command_runs_a_described_model(save, tmp_path, photo, capsys):
    path = save()
    (tmp_path / "names.txt").write_text("red\ngreen\n\nblue\n")
    options = ["--output-content", "logits", "--classes", str(tmp_path / "names.txt")]
    assert run_infer(path, tmp_path, photo, *options, "--mean=123.675,116.28,103.53", "--std=58.395,57.12,57.375") == 0
    assert "1 of 1 images" in capsys.readouterr().out


def test_the_command_takes_a_hand_written_manifest(save, tmp_path, photo):
    path = save(layout="NHWC", dtype="uint8", normalised=False)
    written = Manifest(
        name="theirs",
        kind="onnx",
        precision="unknown",
        class_names=("red", "green", "blue"),
        palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
        input=InputSpec("pixels", stride=1),
        outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
    )
    (tmp_path / "theirs.json").write_text(written.to_json())
    assert run_infer(path, tmp_path, photo, "--manifest", str(tmp_path / "theirs.json")) == 0
    with pytest.raises(UserError, match="--classes beside --manifest"):
        run_infer(path, tmp_path, photo, "--manifest", str(tmp_path / "theirs.json"), "--classes", "3")
    sidecar_path(path).write_text(written.to_json())
    with pytest.raises(UserError, match=r"--classes: .*manifest\.json describes this model already"):
        run_infer(path, tmp_path, photo, "--classes", "3")
    with pytest.raises(UserError, match="no such file; give a number"):
        sidecar_path(path).unlink()
        run_infer(path, tmp_path, photo, "--classes", "names.txt")
    with pytest.raises(UserError, match="no such file; give a number"):
        run_infer(path, tmp_path, photo, "--classes", "n" * 300)
    with pytest.raises(UserError, match="cannot be read: File name too long"):
        run_infer(tmp_path / ("n" * 300), tmp_path, photo)


@pytest.mark.parametrize("stride", [0, -1, 4097])
def test_a_stride_that_is_none_is_refused(save, stride):
    path = save()
    with pytest.raises(UserError, match=rf"stride: expected in 1\.\.4096, got {stride}"):
        describe(read_onnx(path), path, content="logits", classes="3", stride=stride, **IMAGENET)


@pytest.mark.parametrize(
    ("options", "content", "unknown"),
    [
        ({}, "logits", ("R,G,B",)),
        (
            {"layout": "NHWC", "output_layout": "NHWC", "content": "probabilities", "size": (32, 64)},
            "probabilities",
            ("R,G,B",),
        ),
        ({"content": "mask"}, "mask", ("R,G,B", "NUMBER")),
        ({"content": "sigmoids", "dtype": "uint8", "normalised": False}, "sigmoid", ()),
    ],
)
def test_the_error_proposes_a_command_line_that_runs_once_it_is_filled_in(
    save, tmp_path, photo, capsys, options, content, unknown
):
    path = save(**options)
    with pytest.raises(UserError) as caught:
        run_infer(path, tmp_path, photo)
    message = str(caught.value)
    first, _, line, shows, *_ = message.splitlines()
    assert first == f"{path}: no manifest.json beside it, and nothing said of it"
    assert "the file shows: input 'pixels'" in shows and f"--output-content={content}" in line
    assert all(each in line for each in unknown)
    assert ("--mean=123.675,116.28,103.53 --std=58.395,57.12,57.375  ImageNet's" in message) == ("R,G,B" in unknown)
    typed = shlex.split(line)
    assert typed[:3] == ["python", "-m", "serving.infer"], typed
    if "R,G,B" in unknown:
        with pytest.raises(UserError, match="--mean: expected three numbers"):
            main([each.replace("NUMBER", "3") for each in typed[3:]])  # as it stands it runs nothing
    filled = [each.replace("NUMBER", "3") for each in typed[3:]]
    filled = ["--mean=123.675,116.28,103.53" if each.startswith("--mean") else each for each in filled]
    filled = ["--std=58.395,57.12,57.375" if each.startswith("--std") else each for each in filled]
    assert main(filled) == 0
    assert "1 of 1 images" in capsys.readouterr().out


def test_the_proposal_keeps_what_was_given_and_names_choices(tmp_path, models, photo):
    path = tmp_path / "two.onnx"
    onnx.save(models["network"](confidence=True), path)
    with pytest.raises(UserError) as caught:
        run_infer(path, tmp_path, photo, "--classes", "a,b,c")
    message = str(caught.value)
    assert "--output-name: the model has several outputs, choose one of mask, confidence" in message
    line = next(each for each in message.splitlines() if each.startswith("  python -m"))
    assert "--classes a,b,c" in line and line.count("--classes") == 1
    assert "--output-name=mask" in line and "--mean" not in line


def test_our_own_file_without_its_manifest_and_other_files_are_not_taken_for_models_from_elsewhere(
    engine, tmp_path, photo
):
    sidecar_path(engine).unlink()
    with pytest.raises(UserError, match=r"no manifest\.json beside it; copy the one it was exported with"):
        run_infer(engine, tmp_path, photo)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match=r"no manifest\.json beside it"):
        run_infer(tmp_path / "text.onnx", tmp_path, photo)
