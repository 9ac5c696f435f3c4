"""Separate random streams for separate purposes, derived from one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def stream_seed(purpose: str, seed: int) -> int:
    """A seed in [0, 2**63) that differs between purposes and between seeds."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{seed}".encode()).digest()[:8], "big") >> 1


@contextmanager
def random_stream(purpose: str, seed: int) -> Iterator[None]:
    """Within the block torch's CPU generator runs on the stream of (`purpose`, `seed`); afterwards it is as before.

    Layers of torch and timm draw their initial weights from the global generator and take no other: this gives each
    network its own stream without leaving a trace.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(purpose, seed))  # torch.manual_seed would seed CUDA as well
        yield
