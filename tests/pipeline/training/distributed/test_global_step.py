"""Two ranks with half a batch each take the very steps of one process that has all of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.pipeline.training.distributed.global_step import compute, methods
from tests.pipeline.training.distributed.ranks import on_two_ranks

Results = dict[str, dict[str, Tensor]]

# Of the largest gradient of a step; what was updated by it has the rounding of both steps.
TOLERANCE, TOLERANCE_AFTER = 1e-10, 1e-9
# In float32 the steps of an untrained network are rounding to a large part, of one process as well: two ranks may be
# this many times as far from float64 as one process is.
FACTOR = 2


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Results], Results]:
    """What both ranks compute, and one process."""
    return on_two_ranks(compute, tmp_path_factory.mktemp("ranks")), compute()


@pytest.mark.slow
def test_two_ranks_step_as_one_process_with_the_same_batch(computed: tuple[list[Results], Results]) -> None:
    ranks, alone = computed
    assert len(alone) == 2 * (len(methods()) + 6)
    wrong, compared = [], 0
    for case, expected in alone.items():
        first, second = (rank[case] for rank in ranks)
        assert first.keys() == second.keys() == expected.keys()
        wrong += [
            f"{case}: {key} differs between the ranks" for key in first if not torch.equal(first[key], second[key])
        ]
        if case.startswith("float64"):
            for key, error in errors(first, expected).items():
                if error > (TOLERANCE if key.endswith("step 0") else TOLERANCE_AFTER):
                    wrong.append(f"{case}: {key} differs by {error:.1e}")
        compared += sum(bool(value.double().abs().max() > 0) for value in expected.values())
    assert not wrong, "\n".join([f"{len(wrong)} of {compared}:", *wrong[:40]])
    assert compared > 5000  # not all of them zeros


@pytest.mark.slow
def test_in_single_precision_they_round_no_worse(computed: tuple[list[Results], Results]) -> None:
    ranks, alone = computed
    for case, exact in alone.items():
        if case.startswith("float64"):
            single = case.replace("float64", "float32")
            of_ranks, of_one = (max(errors(found[single], exact).values()) for found in (ranks[0], alone))
            assert of_ranks <= FACTOR * of_one + 1e-5, single


def errors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of every tensor, of gradients relative to the largest of all."""
    # What an update makes of a gradient that is rounding alone is no smaller than its neighbours' rounding.
    largest = max(float(value.abs().max()) for key, value in expected.items() if key.startswith("gradient"))
    return {
        key: float((found[key].double() - value.double()).abs().max())
        / (largest if key.startswith("gradient") else max(1.0, float(value.double().abs().max())))
        for key, value in expected.items()
    }
