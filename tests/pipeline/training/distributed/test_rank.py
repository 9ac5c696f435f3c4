"""Ranks meet in a part of the store that no earlier start has written into."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch._C._distributed_c10d import TCPStore

from pipeline.training.distributed.rank import is_rank, part_of_this_start


def test_every_start_has_a_part_of_its_own_of_the_store() -> None:
    """As where a rank died: the store still holds what all of the earlier ranks wrote."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    store.set("contrail/hello/2", "one that was killed before anybody answered")
    for start in range(3):
        clients = [TCPStore("localhost", store.port) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            parts = list(pool.map(part_of_this_start, clients, range(3), [3] * 3))
        assert not any(part.check(["address"]) for part in parts)
        parts[2].set("address", str(start))
        assert [part.get("address") for part in parts] == [str(start).encode()] * 3


def test_only_elastic_launchers_start_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")  # as schedulers of clusters set it too
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not is_rank()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert is_rank()
