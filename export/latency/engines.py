"""Which engines of a run can be measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from export.latency.engine_latency import Engine
from export.records.expected import ExpectedTarget
from export.records.recorded import Key
from export.targets.config import TargetConfig


def working_engines(
    expected: Iterable[ExpectedTarget], verified: Mapping[Key, Mapping[str, Any]], targets: Mapping[str, TargetConfig]
) -> list[Engine]:
    """What can be measured: every engine that gave masks, also one that failed a check (the gate judges that)."""
    engines = []
    for item in expected:
        row = verified.get((item.method, item.seed, item.target))
        if row is not None and row["status"] != "skipped" and row["sha256"] is not None and row["miou"] is not None:
            options = targets[item.target].options
            path = Path(row["path"])
            engines.append(Engine(item.method, item.seed, item.target, path, row["sha256"], item.runtime, options))
    return engines
