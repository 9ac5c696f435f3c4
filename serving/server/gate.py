"""What every request passes: host, token, one line of log, and an answer in JSON whatever goes wrong."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.server.config import Refusal
from serving.server.telemetry import LOGGER, Metrics

# Answered without a token: probes, and the page that asks for one. They tell nothing of what is served.
OPEN_PATHS = frozenset({"/", "/v2/health/live", "/v2/health/ready", "/favicon.ico"})
OPEN_PREFIX = "/page/"
UNKNOWN_ROUTE = "unknown"
TOLD = "told"  # in a request's state: what its line in the log says besides
CROWDED = "crowded"  # in a request's state: whether more connections are open than may be

_PAGE_POLICY = b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]


class Gate:
    """ASGI middleware.

    Args:
        app: what is behind it.
        token: that every request has to bear; None asks for none.
        hosts: that a request may be for (`Host`, without the port); None takes any. A server on the loopback names
            itself only: a page from elsewhere whose name was made to mean 127.0.0.1 could read it else.
        metrics: that are counted.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Collection[str] | None, metrics: Metrics) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._hosts = hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, reason = time.perf_counter(), 0, ""
        path: str = scope["path"]
        told: dict[str, object] = {}
        scope.setdefault("state", {})[TOLD] = told

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
                if path == "/" or path.startswith(OPEN_PREFIX):
                    message["headers"].append((b"content-security-policy", _PAGE_POLICY))
            await send(message)

        try:
            if scope["state"].get(CROWDED):
                raise Refusal(
                    503, "too many connections are open; come again", {"Retry-After": "1", "Connection": "close"}
                )
            self._require_host(scope)
            self._require_token(scope, path)
            await self._app(scope, receive, send_on)
        except Refusal as refusal:
            reason = refusal.reason
            if status == 0:
                await answer(send_on, refusal)
        except Exception as error:  # noqa: BLE001 - the application has answered 500; logged with its traceback
            reason = f"{type(error).__name__}: {error}"
            LOGGER.exception("a request failed by a mistake of the server's own")
        finally:
            took = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
            self._metrics.requests.labels(route, status or 499).inc()
            self._metrics.seconds.labels(route).observe(took)
            fields = {
                "method": scope["method"],
                "path": path[:200],
                "status": status or 499,
                "ms": round(took * 1e3, 1),
                "client": (scope.get("client") or ("",))[0],
                **told,
                **({"reason": reason} if reason else {}),
            }
            LOGGER.log(40 if status >= 500 and status != 503 else 20, "request", extra={"fields": fields})

    def _require_host(self, scope: Scope) -> None:
        if self._hosts is None:
            return
        named = _header(scope, b"host").decode("latin-1")
        host = named.partition("]")[0] + "]" if named.startswith("[") else named.partition(":")[0]
        if host.lower() not in self._hosts:
            raise Refusal(421, f"Host: this server answers for {', '.join(sorted(self._hosts))}, got {named[:80]!r}")

    def _require_token(self, scope: Scope, path: str) -> None:
        if self._token is None or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return
        kind, _, token = _header(scope, b"authorization").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise Refusal(401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


async def answer(send: Send, refusal: Refusal) -> None:
    """Send a refusal in the form of the Open Inference Protocol: `{"error": REASON}`."""
    body = json.dumps({"error": refusal.reason}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refusal.headers}
    raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _header(scope: Scope, name: bytes) -> bytes:
    value: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return value
