"""What the server allows, and the answer to a request that it does not take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.contract.schema import Require

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        max_body_bytes: of one request, before and after it is unpacked; beyond: 413.
        max_pixels: of all images of one request; beyond: 413.
        max_bodies_bytes: of all requests in hand together; beyond: 503.
        queue: images that may wait for one engine; beyond: 503.
        timeout_s: from the whole body to the answer; beyond: 504.
        receive_timeout_s: for the head of a request, and again for its body; beyond: 408.
        max_connections: open at once; beyond: 503.
        stop_s: that requests in hand are given when the server stops.
    """

    max_body_bytes: int = 64 * MEBIBYTE
    max_pixels: int = 50_000_000
    max_bodies_bytes: int = 512 * MEBIBYTE
    queue: int = 64
    timeout_s: float = 30.0
    receive_timeout_s: float = 20.0
    max_connections: int = 512
    stop_s: float = 30.0

    def __post_init__(self) -> None:
        require = Require()
        for name, value in vars(self).items():
            require(value > 0, f"{name}: expected more than 0, got {value}")
        require(
            self.max_body_bytes <= self.max_bodies_bytes,
            f"max_bodies_bytes: expected at least max_body_bytes ({self.max_body_bytes}), got {self.max_bodies_bytes}",
        )
        require.done()


class Refusal(Exception):  # noqa: N818 - an answer, no error of the server's
    """A request that is not answered with what it asks for.

    Args:
        status: of HTTP.
        reason: what, got, expected; one line.
        headers: of the answer, beside its type.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
