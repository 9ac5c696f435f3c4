"""Bodies are unpacked beside the event loop, piece by piece, and count as much as they are unpacked to."""

import asyncio
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.requests import Request

from serving.server import bodies
from serving.server.bodies import Bodies
from serving.server.config import Limits, Refusal

LIMITS = Limits(max_body_bytes=1000, max_bodies_bytes=1500)


class WatchedThreads(ThreadPoolExecutor):
    """Threads, and how many bytes each call was asked for at most."""

    def __init__(self):
        super().__init__(1)
        self.asked = []

    def submit(self, function, /, *arguments, **named):
        self.asked.append(arguments[1])
        return super().submit(function, *arguments, **named)


@pytest.fixture
def threads():
    with WatchedThreads() as threads:
        yield threads


def request(body):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-encoding", b"deflate")]}, receive)


async def received(taken, packed):
    async with taken.receive(request(packed)) as body:
        return body


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_what_was_packed_is_unpacked_in_pieces_by_the_threads(threads, monkeypatch, size):
    monkeypatch.setattr(bodies, "_PIECE", 100)
    content, taken = bytes(range(250)) * 4, Bodies(LIMITS, threads)
    assert asyncio.run(received(taken, zlib.compress(content[:size]))) == content[:size]
    assert threads.asked and max(threads.asked) <= 100 and taken.held == 0


def test_a_body_of_one_byte_more_than_allowed_is_unpacked_no_further(threads, monkeypatch):
    monkeypatch.setattr(bodies, "_PIECE", 100)
    with pytest.raises(Refusal) as refused:
        asyncio.run(received(Bodies(LIMITS, threads), zlib.compress(bytes(10_000))))
    assert refused.value.status == 413 and sum(threads.asked) == 1001


def test_small_bodies_that_are_large_together_are_refused(threads):
    """A packed body of 20 bytes takes 900: as many connections of such would take all memory."""
    packed, taken = zlib.compress(bytes(900)), Bodies(LIMITS, threads)

    async def both():
        async with taken.receive(request(packed)) as first:
            assert taken.held == len(first) + len(packed) and len(packed) < 30
            with pytest.raises(Refusal) as refused:
                await received(taken, packed)
            assert refused.value.status == 503 and taken.held == len(first) + len(packed)
        return await received(taken, packed)

    assert len(asyncio.run(both())) == 900 and taken.held == 0


@pytest.mark.parametrize("packed", [b"", zlib.compress(b"x" * 500)[:-3], zlib.compress(b"x") + b"y", b"nothing"])
def test_what_ends_early_or_goes_on_is_refused(threads, packed):
    with pytest.raises(Refusal) as refused:
        asyncio.run(received(Bodies(LIMITS, threads), packed))
    assert refused.value.status == 400
