"""Two real processes with half a batch each have the loss and the gradients of one with all of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pipeline.losses.shared.global_batch import DTYPES, Result, compute

TOLERANCES = {"float64": 1e-10, "float32": 1e-5}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[dict[str, dict[str, Result]]]:
    """What each of two ranks computes."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.pipeline.losses.shared.global_batch"]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=repository, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_ranks_compute_what_one_process_does_with_the_same_batch(dtype, ranks) -> None:
    alone = compute(DTYPES[dtype])
    tolerance = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    compared = 0
    for name, expected in alone.items():
        first, second = (rank[dtype][name] for rank in ranks)
        assert first.keys() == second.keys() == expected.keys()
        for key, value in expected.items():
            where = f"{name}: {key}"
            if key.startswith("gradient of"):  # the sum of both ranks' losses is twice the loss
                found = torch.cat([first[key], second[key]]) / 2
            elif key.startswith("gradients of the parameters"):
                found = (first[key] + second[key]) / 2
            else:
                assert torch.equal(first[key], second[key]), f"{where} differs between the ranks"
                found = first[key]
            torch.testing.assert_close(found, value, **tolerance, msg=f"{where} is not that of one process")
            compared += bool(value.double().abs().max() > 0)
    assert compared > 300  # not all of them zeros
