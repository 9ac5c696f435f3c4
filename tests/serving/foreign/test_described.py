"""Models from elsewhere, run as they are described: wrong masks or missing words never pass in silence."""

import dataclasses
import itertools

import numpy as np
import onnx
import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec, Manifest, OutputSpec, sidecar_path
from serving.foreign.described import describe, parse_numbers, parse_size, voc_palette
from serving.foreign.onnx_file import read_onnx
from serving.infer import main
from serving.predictor import Predictor

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
    for change in ({"color": "BGR"}, {"mean": None}, {"mean": (0.0, 200.0, 0.0)}, {"std": (58.0, 200.0, 57.0)}):
        wrong = dataclasses.replace(right, input=dataclasses.replace(right.input, **change))
        with Predictor(path, manifest=wrong) as predictor:
            assert (predictor.predict(image) != expected).mean() > 0.02, change


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
    with pytest.raises(UserError, match=r"std: expected in 0\.\.255 units"):
        describe(read_onnx(path), path, content="mask", classes="3", std=(0.229, 0.224, 0.225))
    with pytest.raises(UserError, match="expected 1 to 256 names"):
        describe(read_onnx(path), path, content="mask", classes="1000000000")


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
