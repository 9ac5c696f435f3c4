"""A plan gets those golden inputs that it takes, or one that fills its shape, and its own masks."""

import dataclasses

import numpy as np
import pytest

from export.golden.inputs import Network, golden_inputs
from export.golden.lab import write_golden
from export.golden.plan import write_golden_of_plan
from serving.contract.manifest import read_sidecar, write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile
from serving.golden.golden import Golden, golden_folder
from serving.golden.selftest import self_test


@pytest.fixture
def plan(engine, prepared, segmentor, info, tmp_path):
    """Builds a plan (of the stand-in for TensorRT) that takes the shapes between two sizes."""
    write_golden(engine, golden_inputs(prepared, Network(segmentor, info)))

    def build(least, most):
        folder = tmp_path / "plan"
        folder.mkdir()
        path = folder / "model.plan"
        path.write_bytes(b"PLAN" + engine.read_bytes())
        profile = Profile((1, *least, 3), (1, *most, 3), (4, *most, 3))
        details = PlanDetails("tensorrt_rtx", "1.7.1.116", ("8.9",), profile)
        source = read_sidecar(engine)
        write_sidecar(dataclasses.replace(source, kind="tensorrt", sha256=None, details=details.to_details()), path)
        return path

    return build


@pytest.mark.parametrize(
    ("least", "most", "names"),
    [
        ((32, 32), (128, 128), ["crop 1", "crop 2", "noise", "odd"]),
        ((96, 128), (96, 128), ["crop 1", "crop 2"]),
        ((160, 224), (192, 256), ["filled"]),
    ],
)
def test_a_plan_has_golden_files_of_what_it_takes(fake_gpu, engine, plan, least, most, names, monkeypatch):
    fake_gpu()
    path = plan(least, most)
    assert write_golden_of_plan(path, engine)
    golden = Golden.load(golden_folder(path))
    assert [each.name for each in golden.inputs] == names
    assert [(run.runtime, run.precision, run.logit_error) for run in golden.lab] == [("tensorrt", "fp32", None)]
    with Predictor(path) as predictor:
        result = self_test(predictor)
        assert result.passed and result.compared_with == "tensorrt fp32 in the lab", result.problems
        infer = predictor.runtime.infer
        monkeypatch.setattr(predictor.runtime, "infer", lambda batch: infer(np.ascontiguousarray(batch[..., ::-1])))
        assert not self_test(predictor).passed


def test_without_a_gpu_there_is_nothing_to_write(fake_gpu, engine, plan):
    fake_gpu(devices=0)
    path = plan((32, 32), (128, 128))
    assert not write_golden_of_plan(path, engine)
    assert not golden_folder(path).exists()
