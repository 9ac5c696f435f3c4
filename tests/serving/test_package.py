"""The names of the package, and what importing it costs."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import serving
from serving import Predictor, UserError, read_image

ALONE = """
import sys
import serving
{more}
print(sorted(name for name in sys.modules if name.partition(".")[0] in {{"numpy", "PIL", "onnxruntime", "openvino"}}))
"""

# Each cost every cold start some milliseconds once, or would.
NOT_FOR_ONE_IMAGE = {
    *("numpy.ma", "statistics", "difflib", "shlex", "glob", "concurrent.futures", "importlib.metadata", "asyncio"),
    *("unicodedata", "PIL.ImageFont", "PIL.ImageDraw", "av", "openvino", "tensorrt", "fastapi", "ray"),
    *("serving.render", "serving.extras", "serving.golden", "serving.server", "serving.engines.foreign.proposal"),
}


def imported(more=""):
    done = subprocess.run([sys.executable, "-c", ALONE.format(more=more)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else():
    assert imported() == "[]"


def test_no_engine_library_is_imported_before_an_engine_is_opened():
    names = imported("from serving import *")
    assert "numpy" in names and "onnxruntime" not in names and "openvino" not in names


def test_one_image_imports_nothing_that_only_other_runs_need(engine, photos, tmp_path):
    command = ["infer", str(photos[0]), "--engine", str(engine), "--output", str(tmp_path / "out")]
    program = f"import sys\nfrom serving.infer import main\nassert main({command[1:]!r}) == 0\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / photos[0].name).exists()
    imported = set(done.stdout.splitlines()[-1].split())
    assert "onnxruntime" in imported, "or the list is not one of what a run imports"
    assert imported.isdisjoint(NOT_FOR_ONE_IMAGE), imported & NOT_FOR_ONE_IMAGE


def test_every_name_is_there_and_no_other():
    assert {name for name in serving.__all__ if getattr(serving, name).__name__ == name} == set(serving.__all__)
    assert set(serving.__all__) <= set(dir(serving))
    with pytest.raises(AttributeError, match="module 'serving' has no attribute 'Predicter'"):
        _ = serving.Predicter


@pytest.fixture
def photos(tmp_path, photo):
    paths = [tmp_path / f"{index:02}.png" for index in range(9)]
    for index, path in enumerate(paths):
        Image.fromarray(photo(30 + index % 2, 40, index)).save(path)
    return paths


@pytest.mark.parametrize("workers", [1, 3, None])
def test_a_stream_gives_every_image_in_order(engine, photos, workers):
    photos[4].write_bytes(b"no image")
    with Predictor.open(engine, options={"threads": 1}) as predictor:
        streamed = list(predictor.stream([str(photos[0]), *photos[1:]], workers=workers))
        assert [each.path for each in streamed] == photos
        for each, path in zip(streamed, photos, strict=True):
            if path == photos[4]:
                assert each.image is None and each.segmentation is None
                assert isinstance(each.error, UserError) and str(path) in str(each.error)
            else:
                np.testing.assert_array_equal(each.image, read_image(path))
                np.testing.assert_array_equal(each.segmentation.mask, predictor.predict(each.image))
                assert each.error is None


def test_a_stream_takes_paths_as_they_are_needed(engine, photos):
    taken = []

    def paths():
        for number in range(500):
            taken.append(number)
            yield photos[number % len(photos)]

    with Predictor.open(engine, options={"threads": 1}) as predictor:
        stream = predictor.stream(paths(), workers=2)
        assert next(stream).path == photos[0]
        assert len(taken) <= 5
        stream.close()


def test_an_image_that_the_engine_fails_on_keeps_its_pixels(engine, photos, monkeypatch):
    def fail(batch):
        raise UserError("out of order")

    with Predictor.open(engine) as predictor:
        monkeypatch.setattr(predictor.runtime, "infer", fail)
        (each,) = predictor.stream(photos[:1])
        assert each.image is not None and each.segmentation is None and "out of order" in str(each.error)
