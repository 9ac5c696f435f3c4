"""How CPUs are shared: one image has them all, many small ones have one each, of large ones two are in hand."""

import pytest
from PIL import Image

from serving.engines.runtimes.onnxruntime.engine import OnnxRuntime
from serving.engines.runtimes.openvino.engine import OpenVino
from serving.engines.runtimes.tensorrt.engine import TensorRT
from serving.images.listing import ListedImage
from serving.inference.arrangement import arrange
from serving.inference.planning import Job


@pytest.fixture
def jobs(tmp_path):
    def build(count, size=(480, 360)):
        path = tmp_path / "a.png"
        Image.new("RGB", size).save(path)
        return [Job(ListedImage(str(path), "a.png", str(tmp_path)), "out/a")] * count

    return build


def arranged(jobs, runtime=OnnxRuntime, options=None, threads=8, tile=None):
    arrangement = arrange(jobs, runtime, options or {}, threads=threads, tile=tile)
    return arrangement.workers, dict(arrangement.options)


def test_one_image_has_all_threads(jobs):
    assert arranged(jobs(1)) == (1, {"threads": 8})
    assert arranged(jobs(1), threads=None) == (1, {})


def test_many_small_images_have_a_thread_each(jobs):
    assert arranged(jobs(100)) == (8, {"threads": 1})
    assert arranged(jobs(3)) == (3, {"threads": 2})
    assert arranged(jobs(100), OpenVino) == (8, {"threads": 8, "mode": "throughput", "streams": 8})
    assert arranged(jobs(100), OpenVino, threads=1) == (1, {"threads": 1})
    assert arranged(jobs(100), TensorRT) == (8, {})


def test_of_large_images_fewer_are_in_memory_at_once(jobs):
    assert arranged(jobs(100, (2048, 1024))) == (4, {"threads": 2})
    assert arranged(jobs(100, (4000, 3000))) == (2, {"threads": 4})
    assert arranged(jobs(100, (4000, 3000)), tile=(512, 512)) == (8, {"threads": 1})


def test_what_was_asked_for_stays(jobs):
    assert arranged(jobs(100), options={"threads": 3}) == (8, {"threads": 3})
    assert arranged(jobs(100), OpenVino, options={"mode": "latency"}) == (8, {"mode": "latency"})
    assert arranged(jobs(100), options={"spinning": False}) == (8, {"threads": 1, "spinning": False})


def test_images_that_cannot_be_read_decide_nothing(tmp_path):
    gone = [Job(ListedImage(str(tmp_path / "gone.png"), "gone.png", str(tmp_path)), "out/gone")] * 9
    assert arranged(gone) == (8, {"threads": 1})
