"""What is counted for Prometheus, and the log: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily

from serving.server.batching import Answer

if TYPE_CHECKING:
    from serving.server.engines import ServedEngine

LOGGER = logging.getLogger("contrail.server")

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The server's metrics, in a registry of its own.

    Args:
        engines: whose queues are counted.

    Attributes:
        registry: what `/metrics` shows.
    """

    def __init__(self, engines: Mapping[str, ServedEngine]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "contrail_requests",
            "Requests by route and status.",
            ("route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "contrail_request_seconds", "From head to answer.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.images = Counter("contrail_images", "Images segmented.", ("engine",), registry=self.registry)
        self.queue_seconds = Histogram(
            "contrail_queue_seconds", "That images waited.", ("engine",), buckets=_SECONDS, registry=self.registry
        )
        self.engine_seconds = Histogram(
            "contrail_engine_seconds", "That batches took.", ("engine",), buckets=_SECONDS, registry=self.registry
        )
        self.batches = Histogram(
            "contrail_batch_images", "Images in one batch.", ("engine",), buckets=_BATCHES, registry=self.registry
        )
        self._engines = engines
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What is read when it is asked for (the interface of prometheus_client)."""
        waiting = GaugeMetricFamily("contrail_waiting_images", "Images in the queue.", labels=("engine",))
        running = GaugeMetricFamily("contrail_running_images", "Images in the engine.", labels=("engine",))
        for name, engine in self._engines.items():
            waiting.add_metric((name,), engine.batcher.waiting)
            running.add_metric((name,), engine.batcher.running)
        yield from (waiting, running)

    def observe(self, engine: str, answers: list[Answer]) -> None:
        """Count the images of one request."""
        self.images.labels(engine).inc(len(answers))
        for answer in answers:
            self.queue_seconds.labels(engine).observe(answer.queue_ms / 1e3)
            self.engine_seconds.labels(engine).observe(answer.engine_ms / 1e3)
            self.batches.labels(engine).observe(answer.batch)


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, message, and what the record's `extra` holds under `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_config(level: str) -> dict[str, object]:
    """For `logging.config.dictConfig`: uvicorn's own messages and ours in one form, and no second line per request."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "loggers": {
            LOGGER.name: {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
        },
    }
