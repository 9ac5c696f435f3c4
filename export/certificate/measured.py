"""Whether the session pairs that lie there are of what is certified: the target, the baseline, and these very files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from export.latency.config import CertifyConfig
from export.latency.paired_latency import PairSamples
from export.targets.config import TargetConfig
from export.targets.engines import engine_path
from serving.contract.errors import UserError
from serving.contract.files import file_sha256


def measured_pairs(
    name: str,
    method: str,
    seeds: Sequence[int],
    target: TargetConfig,
    config: CertifyConfig,
    benchmark: Mapping[str, Any],
    pairs: Mapping[str, Sequence[PairSamples]],
) -> tuple[Sequence[PairSamples], str | None]:
    """The session pairs of a comparison, or none and the reason why they say nothing.

    Args:
        name: of the comparison in benchmark.json: the method's, or the control's.
        method: whose engines were compared with the baseline's; the baseline itself for the control.
        seeds: of the method's branches.
        target: that is certified.
        config: what is certified.
        benchmark: benchmark.json.
        pairs: of every comparison, as the samples beside it have them.
    """
    entry = benchmark.get("comparisons", {}).get(name)
    found = pairs.get(name, ())
    if entry is None or not found:
        return (), (entry or {}).get("reason") or f"{config.target} was not measured for both methods"
    asked = {"target": config.target, "baseline": config.baseline, "pairs": len(found)}
    other = [f"{key} {entry.get(key)!r}, expected {value!r}" for key, value in asked.items() if entry.get(key) != value]
    measured = sorted(engine["seed"] for engine in entry["engines"])
    if measured != sorted(seeds):
        other.append(f"seeds {measured}, expected {sorted(seeds)}")
    if not other:
        other = _other_files(entry["engines"], method, target, config)
    if other:
        return (), f"what was measured is something else ({'; '.join(other)}): run benchmark again"
    return found, None


def _other_files(
    engines: Sequence[Mapping[str, Any]], method: str, target: TargetConfig, config: CertifyConfig
) -> list[str]:
    """What became of engines whose files are no longer those that were measured."""
    found = {}
    for engine in engines:
        for key, whose in (("baseline_sha256", config.baseline), ("sha256", method)):
            path = engine_path(whose, engine["seed"], config.target, target)
            try:
                same = file_sha256(path) == engine[key]
            except UserError as error:
                found[path] = str(error)
            else:
                if not same:
                    found[path] = f"{path} is not the file that was measured"
    return list(found.values())
