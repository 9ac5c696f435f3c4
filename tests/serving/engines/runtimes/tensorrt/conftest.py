"""Plans for the stand-in of a GPU, and what must come out of them."""

import dataclasses

import pytest

from serving.contract.manifest import write_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes.tensorrt.plan import PlanDetails, Profile

PROFILE = Profile((1, 32, 32, 3), (1, 64, 96, 3), (4, 128, 128, 3))
DETAILS = PlanDetails("tensorrt_rtx", "1.7.1.116", ("8.6", "8.9"), PROFILE)


@pytest.fixture
def write_plan(tmp_path, models, manifest):
    """Writes a plan for 1 to 4 images of 32 to 128 pixels a side; returns its path."""

    def write(details=DETAILS, content=None, **changes):
        path = tmp_path / "model.plan"
        path.write_bytes(content or b"PLAN" + models["network"]().SerializeToString())
        filled = dataclasses.replace(
            manifest, kind="tensorrt", details=details if isinstance(details, dict) else details.to_details(), **changes
        )
        write_sidecar(filled, path)
        return path

    return write


@pytest.fixture
def reference(engine):
    """The network of those plans, in ONNX Runtime."""
    with Predictor(engine, options={"threads": 1}) as predictor:
        yield predictor
