"""The counter of operations that other tests rely on."""

from __future__ import annotations

from typing import Any

import torch


def test_the_counter_sees_what_makes_the_host_wait(operation_counter: type[Any]) -> None:
    rows, mask = torch.ones(4), torch.ones(4, dtype=torch.bool)
    with operation_counter() as operations:
        rows.sum().item()
        mask.nonzero()
        rows[mask]
        rows[torch.tensor([1])]
        bool(mask.any())
    assert operations.waits == ["_local_scalar_dense", "nonzero", "index", "_local_scalar_dense"]
