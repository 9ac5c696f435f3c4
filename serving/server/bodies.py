"""Bodies of requests: received within a time, no larger than allowed, and unpacked no further than that."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from serving.server.config import MEBIBYTE, Limits, Refusal

# Of zlib.decompressobj: a gzip header, or a zlib one.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_PIECE = 8 * MEBIBYTE  # that is unpacked at once, beside the event loop


class Bodies:
    """Receives bodies, and knows how many bytes of them are in hand.

    Args:
        limits: of requests.
        codecs: threads that unpack.
    """

    def __init__(self, limits: Limits, codecs: Executor) -> None:
        self._limits = limits
        self._codecs = codecs
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of all bodies that are in hand."""
        return self._held

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, unpacked; it counts as held until the block ends.

        Raises:
            Refusal: 400 for one that ends early or cannot be unpacked, 408 for a slow one, 413 for a large one, 415 for
                an unknown packing, 503 where all bodies together are too many bytes.
        """
        window = _window_bits(request.headers.get("content-encoding", ""))
        declared = request.headers.get("content-length", "")
        limit = self._limits.max_body_bytes
        size = int(declared) if declared.isascii() and declared.isdigit() else 0
        refusal = self._too_large(f"{declared} bytes") if size > limit else None
        if refusal is not None and "expect" in request.headers:  # the client has sent nothing of it yet
            raise refusal
        taken = held = 0
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._limits.receive_timeout_s):
                    async for part in request.stream():
                        taken += len(part)
                        if refusal is None:
                            refusal = self._no_room(len(part), taken)
                        if refusal is None:
                            held += len(part)
                            self._held += len(part)
                            parts.append(part)
                        # What is refused is read to its end: a client that still sends does not look for an answer.
            except TimeoutError:
                late = f"only {taken} bytes of the body came within {self._limits.receive_timeout_s:g} s"
                raise refusal or Refusal(408, late, {"Connection": "close"}) from None
            except ClientDisconnect:
                raise refusal or Refusal(400, f"the connection ended after {taken} bytes of the body") from None
            if refusal is not None:
                raise refusal
            body = b"".join(parts)
            parts.clear()
            if window is not None:
                async for part in self._unpacked(body, window):
                    held += len(part)
                    self._held += len(part)
                    parts.append(part)
                body = b"".join(parts)
                parts.clear()
            yield body
        finally:
            self._held -= held

    def _no_room(self, more: int, taken: int) -> Refusal | None:
        if taken > self._limits.max_body_bytes:
            return self._too_large("more")
        if self._held + more > self._limits.max_bodies_bytes:
            return Refusal(503, "too busy: requests in hand take all the memory they may", {"Retry-After": "1"})
        return None

    def _too_large(self, size: str) -> Refusal:
        limit = self._limits.max_body_bytes
        return Refusal(413, f"a body of {size}; at most {limit} bytes are taken", {"Connection": "close"})

    async def _unpacked(self, packed: bytes, window: int) -> AsyncIterator[bytes]:
        """What is in a packed body, in parts; the event loop answers others while each is unpacked."""
        limit, taken = self._limits.max_body_bytes, 0
        loop, unpacker = asyncio.get_running_loop(), zlib.decompressobj(window)
        while True:
            most = min(_PIECE, limit - taken + 1)
            try:
                part = await loop.run_in_executor(self._codecs, unpacker.decompress, packed, most)
            except zlib.error as error:
                raise Refusal(400, f"the body cannot be unpacked: {error}") from error
            taken += len(part)
            if taken > limit:
                raise Refusal(413, f"a body of more than {limit} bytes, unpacked; at most as many are taken")
            if (refusal := self._no_room(len(part), taken)) is not None:
                raise refusal
            yield part
            packed = unpacker.unconsumed_tail
            if unpacker.eof or not (packed or part):
                break
        if not unpacker.eof or unpacker.unused_data:
            raise Refusal(400, "the packed body ends early, or goes on behind its end")


def _window_bits(encoding: str) -> int | None:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in _WINDOW_BITS:
        raise Refusal(415, f"Content-Encoding: expected gzip, deflate or none, got {encoding[:40]!r}")
    return _WINDOW_BITS[name]
