"""What the routes share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from serving.contract.errors import did_you_mean
from serving.server.bodies import Bodies
from serving.server.config import Limits, Refusal
from serving.server.engines import ServedEngine
from serving.server.telemetry import Metrics


@dataclass(frozen=True)
class Services:
    """Engines, limits and what is kept of them.

    Attributes:
        engines: by the name that clients call them; at least one, the first is the default of `/v1/segment`.
        limits: of requests.
        bodies: receives them.
        metrics: counts them.
        codecs: threads that decode and encode images.
    """

    engines: Mapping[str, ServedEngine]
    limits: Limits
    bodies: Bodies
    metrics: Metrics
    codecs: ThreadPoolExecutor

    def engine(self, name: str, version: str = "1") -> ServedEngine:
        """The engine of a name. Raises Refusal (404) for one that is not there."""
        if name not in self.engines:
            raise Refusal(404, f"no engine {name[:80]!r}{did_you_mean(name[:80], self.engines)}")
        if version != "1":
            raise Refusal(404, f"{name}: no version {version[:20]!r}; there is 1")
        return self.engines[name]

    def close(self) -> None:
        """Finish what is begun, and free everything."""
        self.codecs.shutdown()
        for engine in self.engines.values():
            engine.close()
