"""From an image to its mask, whatever its size, one at a time or many."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from serving.contract.errors import EngineError, UserError
from serving.contract.manifest import InputSpec, OutputSpec, read_sidecar, sidecar_path
from serving.engines.predictor import Predictor
from serving.images.geometry import place


@pytest.fixture
def predictor(engine):
    with Predictor(engine, options={"threads": 1}) as opened:
        yield opened


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 100), width=st.integers(1, 100))
def test_every_size_gives_the_mask_of_the_padded_image_cropped(engine, predictor, photo, height, width):
    image = photo(height, width)
    mask = predictor.predict(image)
    assert mask.shape == (height, width) and mask.dtype == np.uint8
    placed, _ = place(image, stride=32)
    session = onnxruntime.InferenceSession(str(engine), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": placed[None]})
    np.testing.assert_array_equal(mask, expected[0, :height, :width])


def test_a_batch_of_mixed_sizes_comes_back_in_order(predictor, photo):
    sizes = [(40, 50), (64, 64), (33, 64), (40, 50), (10, 70)]
    images = [photo(*size, seed) for seed, size in enumerate(sizes)]
    masks = predictor.predict_batch(images)
    for image, mask in zip(images, masks, strict=True):
        np.testing.assert_array_equal(mask, predictor.predict(image))
    assert predictor.predict_batch([]) == []


def test_timings_cover_the_last_call(predictor, photo):
    predictor.predict(photo(64, 64))
    assert set(predictor.timings_ms) == {"preprocess", "engine", "postprocess"}
    assert predictor.timings_ms["engine"] > 0


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(predictor, image):
    with pytest.raises(UserError, match=r"expected uint8 \[H,W,3\], got"):
        predictor.predict(image)


@pytest.mark.parametrize("image", ["a.png", [[[0, 0, 0]]], Image.new("RGB", (4, 4)), None])
def test_what_is_no_array_is_refused(predictor, image):
    with pytest.raises(UserError, match=r"image: expected uint8 \[H,W,3\], got \w+; `read_image` reads a file"):
        predictor.predict(image)


def test_a_batch_may_be_made_as_it_is_taken(predictor, photo):
    masks = predictor.predict_batch(photo(32, 48, seed) for seed in range(3))
    np.testing.assert_array_equal(masks[2], predictor.predict(photo(32, 48, 2)))
    with pytest.raises(UserError, match="image: expected uint8"):
        predictor.predict_batch("a.png")


def test_the_image_given_is_never_changed(predictor, photo):
    image = photo(64, 64)
    image.flags.writeable = False
    copy = image.copy()
    predictor.predict(image)
    np.testing.assert_array_equal(image, copy)


def test_tiles_of_a_pointwise_network_give_the_same_mask(tmp_path, build_engine, models, manifest, photo):
    pointwise = dataclasses.replace(
        manifest,
        input=InputSpec("pixels", "NHWC", "uint8", stride=8),
        outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
    )
    path = build_engine(tmp_path, models["color"](layout="NHWC", dtype="uint8", normalised=False), pointwise)
    image = photo(150, 210)
    with Predictor(path) as whole, Predictor(path, tile=(64, 64), overlap=16) as tiled:
        np.testing.assert_array_equal(tiled.predict(image), whole.predict(image))
        np.testing.assert_array_equal(whole.predict(image), image.argmax(2))


def test_tiles_see_the_confidence_too_and_bad_tiles_are_refused(tmp_path, build_engine, models, manifest, photo):
    both = dataclasses.replace(manifest, outputs=(OutputSpec(), OutputSpec("confidence", "confidence")))
    path = build_engine(tmp_path, models["network"](confidence=True), both)
    with Predictor(path, tile=(64, 64), overlap=32) as tiled:
        (segmentation,) = tiled.segment([photo(100, 130)])
    assert segmentation.confidence is not None
    assert segmentation.confidence.shape == (100, 130) and segmentation.confidence.min() >= 84  # 255 / 3 classes
    for overlap in (33, 63, 64, -1):
        with pytest.raises(UserError, match=rf"overlap: expected in 0\.\.32 \(at most half a tile\), got {overlap}"):
            Predictor(path, tile=(64, 64), overlap=overlap)
    for tile in ((1, 1), (31, 512), (512, 31)):
        with pytest.raises(UserError, match=rf"tile: expected at least 32x32 .*, got {tile[0]}x{tile[1]}"):
            Predictor(path, tile=tile, overlap=0)
    coarse = dataclasses.replace(both, input=InputSpec(stride=128))
    with pytest.raises(UserError, match=r"tile: expected at least 128x128 \(the engine's stride is 128\), got 64x512"):
        Predictor(build_engine(tmp_path / "c", None, coarse), tile=(64, 512), overlap=0)
    resized = dataclasses.replace(both, input=InputSpec(resize=(64, 64)))
    with pytest.raises(UserError, match="leave tiles out"):
        Predictor(build_engine(tmp_path / "r", None, resized), tile=(64, 64))


def test_a_resizing_engine_gives_masks_of_the_original_size(tmp_path, build_engine, manifest, photo):
    path = build_engine(tmp_path, None, dataclasses.replace(manifest, input=InputSpec(resize=(48, 80))))
    with Predictor(path) as predictor:
        mask = predictor.predict(photo(90, 70))
        assert mask.shape == (90, 70)
        assert {mask.shape for mask in predictor.predict_batch([photo(5, 9), photo(90, 70)])} == {(5, 9), (90, 70)}


def test_the_hash_is_checked_before_anything_is_loaded(engine, monkeypatch):
    engine.write_bytes(engine.read_bytes()[:-1] + b"\0")
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("deserialised before the check"))
    with pytest.raises(UserError, match="not the file its manifest describes"):
        Predictor(engine)


def test_without_the_check_only_what_runs_counts(engine, photo):
    sidecar_path(engine).write_text(read_sidecar(engine).to_json().replace('"sha256": "', '"sha256": "').strip())
    engine.write_bytes(engine.read_bytes() + b"\x12\x00")  # an empty producer name: another file, the same graph
    with pytest.raises(UserError, match="not the file"):
        Predictor(engine)
    with Predictor(engine, check=False) as predictor:
        assert predictor.predict(photo(32, 32)).shape == (32, 32)


def test_a_sidecar_without_a_hash_is_refused_and_an_explicit_manifest_is_taken(engine, manifest, photo):
    sidecar_path(engine).write_text(manifest.to_json())
    with pytest.raises(UserError, match="no sha256 in it"):
        Predictor(engine)
    with Predictor(engine, manifest=manifest) as predictor:
        assert predictor.predict(photo(32, 32)).shape == (32, 32)


def test_an_unknown_runtime_and_one_of_another_kind_are_refused(engine):
    with pytest.raises(UserError, match="unknown runtime 'onxruntime'; did you mean 'onnxruntime'"):
        Predictor(engine, runtime="onxruntime")
    with pytest.raises(UserError, match="an engine of kind onnx; runtime tensorrt opens tensorrt"):
        Predictor(engine, runtime="tensorrt")


def test_closing_twice_does_nothing(engine):
    predictor = Predictor(engine)
    predictor.close()
    predictor.close()


@pytest.fixture
def misshapen(tmp_path, build_engine, models, manifest):
    """An engine that answers images of less than 40 rows with nothing: a mask of `rows - 40` rows."""

    def build(**changes):
        model = models["network"]()
        cut = numpy_helper.from_array(np.array([40]), "start"), numpy_helper.from_array(np.array([10_000]), "end")
        axis = numpy_helper.from_array(np.array([1]), "axis")
        model.graph.initializer.extend([*cut, axis])
        last = model.graph.node[-1]
        last.output[0] = "whole"
        model.graph.node.append(onnx.helper.make_node("Slice", ["whole", "start", "end", "axis"], ["mask"]))
        return build_engine(tmp_path / "misshapen", model, dataclasses.replace(manifest, **changes))

    return build


def test_an_empty_or_misshapen_answer_is_one_line_that_names_tiles(misshapen, photo):
    with Predictor(misshapen(), options={"threads": 1}) as predictor:
        for image, shape in ((photo(32, 64), r"\[1, 0, 64\]"), (photo(96, 64), r"\[1, 56, 64\]")):
            with pytest.raises(EngineError, match=rf"output 'mask' has shape {shape} .*--tile 512x512") as caught:
                predictor.predict(image)
            assert "\n" not in str(caught.value)
    with Predictor(misshapen(input=InputSpec(resize=(32, 64)))) as predictor, pytest.raises(EngineError) as caught:
        predictor.predict(photo(5, 5))
    assert "--tile" not in str(caught.value)  # this engine takes one size only


def test_what_the_runtime_says_of_an_image_that_it_refuses_names_the_only_size(
    tmp_path, build_engine, models, manifest, photo
):
    described = dataclasses.replace(
        manifest,
        input=InputSpec("pixels", "NHWC", "uint8", stride=1),
        outputs=(OutputSpec("result", "logits", "NCHW", "float32"),),
    )
    model = models["color"](layout="NHWC", dtype="uint8", normalised=False, size=(32, 48))
    path = build_engine(tmp_path, model, described)
    only = r'it takes 32x48 pixels only: its manifest has to say "resize": \[32, 48\]$'
    for runtime, name in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
        with Predictor(path, runtime=runtime) as predictor:
            assert predictor.runtime.size_range == ((32, 48), (32, 48))
            with pytest.raises(EngineError, match=rf"{name}, on an input .*; {only}"):
                predictor.predict(photo(33, 48))
    with Predictor(path, tile=(32, 48), overlap=0) as predictor:
        assert predictor.predict(photo(64, 96)).shape == (64, 96)


def test_windows_are_proposed_of_a_size_that_the_engine_takes(predictor, photo, monkeypatch):
    def fail(_):
        raise MemoryError

    assert predictor.runtime.size_range is None
    predictor.runtime.size_range = ((64, 1024), (256, 2048))
    monkeypatch.setattr(predictor.runtime, "infer", fail)
    with pytest.raises(EngineError, match=r"as in --tile 256x1024$"):
        predictor.predict(photo(300, 2100))


def test_too_little_memory_is_one_line_that_names_tiles(predictor, photo, monkeypatch):
    def fail(_):
        raise MemoryError

    monkeypatch.setattr(predictor.runtime, "infer", fail)
    with pytest.raises(EngineError, match=r"too little memory for an image of 64x80; windows may go .*--tile"):
        predictor.predict(photo(64, 80))
