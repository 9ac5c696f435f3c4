"""Small tensors go from rank to rank, in the order of the ranks, and a rank that is gone is noticed."""

from __future__ import annotations

import copy
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.losses.shared.distributed import own_rank
from pipeline.training.distributed.direct import MOST_BYTES, DirectExchange
from tests.pipeline.training.distributed.ranks import on_two_ranks


def connected(ranks: int) -> list[DirectExchange]:
    """Those of some ranks, all in this process."""
    sockets: list[dict[int, socket.socket]] = [{} for _ in range(ranks)]
    for first, second in combinations(range(ranks), 2):
        sockets[first][second], sockets[second][first] = socket.socketpair()
    return [DirectExchange(rank, own) for rank, own in enumerate(sockets)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_rank_gets_what_all_give_in_their_order(dtype: torch.dtype) -> None:
    given = torch.randn(3, 2, MOST_BYTES // 16, dtype=dtype)
    exchanges = connected(3)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for whole in pool.map(DirectExchange.gather, exchanges, given):
                assert torch.equal(whole, given)
            given = given.flip(0)
    for exchange in exchanges:
        exchange.close()


def test_a_rank_that_is_gone_ends_the_wait_for_it() -> None:
    first, second = connected(2)
    second.close()
    with pytest.raises(dist.DistNetworkError, match="Connection closed by peer"):  # a rank's end, to `run_rank`
        first.gather(torch.zeros(3))
    first.close()


@pytest.mark.slow
def test_two_ranks_find_each_other(tmp_path: Path) -> None:
    first, second = on_two_ranks(find_each_other, tmp_path)
    for rank, (small, large, message) in enumerate((first, second)):
        assert torch.equal(small, torch.tensor([[0.0, 1.0], [1.0, 2.0]]))
        assert large.shape == (2, MOST_BYTES) and torch.equal(large.mean(1), torch.tensor([0.0, 1.0])), "by gloo"
        assert message == ("" if rank else "Connection closed by peer"), "though a process that it forked goes on"


def find_each_other() -> tuple[Tensor, Tensor, str]:
    """What this rank gathers, and what it hears when the second one ends."""
    exchange = copy.deepcopy(DirectExchange.connect())
    assert exchange.is_direct
    rank = float(own_rank())
    small, large = exchange.gather(torch.arange(2.0) + rank), exchange.gather(torch.full((MOST_BYTES,), rank))
    message = ""
    if own_rank():
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.close(writing)
            os.read(reading, 1)  # until its parent ends the pipe
            os._exit(0)
        exchange.close()
        dist.barrier()
        os.close(writing)
        os.waitpid(child, 0)
    else:
        try:
            exchange.gather(small[0])
        except dist.DistNetworkError as error:
            message = str(error)
        dist.barrier()
    return small, large, message
