"""Connections that are slow, too many, or end in the middle of a request: answered, and closed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.server.config import Limits
from serving.server.gate import CROWDED


def protocol_class(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of uvicorn with a time for heads of requests, and a word for clients that end their side early."""

    class BoundedProtocol(HttpToolsProtocol):
        _waits_for_head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._waits_for_head is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._forget_head()
            self.scope["state"][CROWDED] = len(self.connections) > limits.max_connections
            super().on_headers_complete()

        def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's protocols may keep their side open
            """The client sends no more. Where a request is whole its answer still goes out; else the client is told."""
            cycle = self.cycle
            whole = cycle is not None and not cycle.response_complete and not cycle.more_body
            if whole:
                return True
            if self._waits_for_head is None and cycle is not None and not cycle.response_complete:
                self._say(400, "the request ends before its body does")
            return False

        def send_400_response(self, msg: str) -> None:
            self._say(400, msg)

        def _expect_head(self) -> None:
            self._waits_for_head = self.loop.call_later(limits.receive_timeout_s, self._head_is_late)

        def _forget_head(self) -> None:
            if self._waits_for_head is not None:
                self._waits_for_head.cancel()
                self._waits_for_head = None

        def _head_is_late(self) -> None:
            self._waits_for_head = None
            if not self.transport.is_closing():
                self._say(408, f"no whole head of a request within {limits.receive_timeout_s:g} s")

        def _say(self, status: int, reason: str) -> None:
            body = json.dumps({"error": reason}).encode()
            phrase = {400: "Bad Request", 408: "Request Timeout"}[status]
            head = (
                f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return BoundedProtocol
