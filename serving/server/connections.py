"""Connections that are slow or too many, have no end or a too early one: answered, and closed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.server.config import Limits
from serving.server.gate import CROWDED

_MAX_HEAD_BYTES = 64 * 1024  # of the line and the headers of a request; browsers and proxies send less than 16 KiB


def protocol_class(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol of uvicorn with a time and a size for heads, and a word for clients that end their side early."""

    class BoundedProtocol(HttpToolsProtocol):
        _waits_for_head: asyncio.TimerHandle | None = None
        _head_bytes = 0  # as far as they came in pieces; what one piece holds is bounded by the transport
        _refused = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            super().data_received(data)
            if self._waits_for_head is not None:
                self._head_bytes += len(data)
                if self._head_bytes > _MAX_HEAD_BYTES:
                    self._head_is_large()

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()
            if self._waits_for_head is None:
                self._expect_head()

        def on_headers_complete(self) -> None:
            self._forget_head()
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > _MAX_HEAD_BYTES:
                self._head_is_large()
                return
            self.scope["state"][CROWDED] = len(self.connections) > limits.max_connections
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self._refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            if not self._refused:
                super().on_message_complete()

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

        def _head_is_large(self) -> None:
            self._refused = True
            self._forget_head()
            self._say(431, f"the line and the headers of a request take more than {_MAX_HEAD_BYTES} bytes")

        def _say(self, status: int, reason: str) -> None:
            body = json.dumps({"error": reason}).encode()
            phrase = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
            head = (
                f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

    return BoundedProtocol
