"""What changed from one report to another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from export.machine.hardware import HARDWARE_KEYS
from serving.contract.errors import UserError

Report = Mapping[str, Any]


def hardware_differences(before: Report, after: Report) -> list[str]:
    """What differs between the machines of two reports, in words; empty when latencies may be compared."""
    first, second = before["device"]["hardware"], after["device"]["hardware"]
    return [
        f"{key}: {_shown(first.get(key))} against {_shown(second.get(key))}"
        for key in HARDWARE_KEYS
        if first.get(key) != second.get(key)
    ]


def target_changes(before: Report, after: Report, *, latency: bool = True) -> list[dict[str, Any]]:
    """One row per target of either report.

    Args:
        before: a report.
        after: another.
        latency: compare latencies too.

    Returns:
        Rows with `method`, `seed`, `target`, `status` and `miou`, `p50_ms`, `engine_bytes` as [before, after];
        `miou_points` and `p50_ratio` of after against before; None where unknown.

    Raises:
        UserError: latencies of different hardware were to be compared.
    """
    differences = hardware_differences(before, after) if latency else []
    if differences:
        listed = "".join(f"\n  {difference}" for difference in differences)
        raise UserError(
            f"the two reports are from different hardware, whose latencies do not compare:{listed}\n"
            "run both on one machine, or pass --no-latency to compare accuracy, size and verdicts only"
        )
    rows: dict[tuple[str, int, str], list[Mapping[str, Any] | None]] = {}
    for side, report in enumerate((before, after)):
        for row in report["targets"]:
            key = (row["method"], row["seed"], row["target"])
            rows.setdefault(key, [None, None])[side] = row
    return [_target_change(key, pair, before, after, latency) for key, pair in rows.items()]


def notes(before: Report, after: Report) -> list[str]:
    """What a reader must know beside the numbers: other software, profile, data, or ways to measure and to judge."""
    pairs = {name: (before.get(name), after.get(name)) for name in ("profile", "dataset")}
    for key in ("baseline", "target", "margin"):
        pairs[f"certificate, {key}"] = (before["certificate"].get(key), after["certificate"].get(key))
    settings = [report["benchmark"].get("settings") or {} for report in (before, after)]
    for key in sorted(settings[0].keys() | settings[1].keys()):
        pairs[f"benchmark, {key}"] = (settings[0].get(key), settings[1].get(key))
    runtimes = [_runtimes(report) for report in (before, after)]
    for (method, seed, target), old in runtimes[0].items():
        if (method, seed, target) in runtimes[1]:
            pairs[f"{method}, seed {seed}, {target}, runtime"] = (old, runtimes[1][method, seed, target])
    first, second = before["device"]["software"], after["device"]["software"]
    pairs |= {name: (first.get(name), second.get(name)) for name in sorted(first.keys() | second.keys())}
    return [f"{name}: {_shown(old)} against {_shown(new)}" for name, (old, new) in pairs.items() if old != new]


def verdict_changes(before: Report, after: Report) -> dict[str, list[str | None]]:
    """Method -> the verdict of its certificate as [before, after]; None where a report has none."""
    methods = [report["certificate"].get("methods") or {} for report in (before, after)]
    names = list(dict.fromkeys([*methods[0], *methods[1]]))
    return {name: [side[name]["verdict"] if name in side else None for side in methods] for name in names}


def _target_change(
    key: tuple[str, int, str], pair: list[Mapping[str, Any] | None], before: Report, after: Report, latency: bool
) -> dict[str, Any]:
    status = [None if row is None else row["status"] for row in pair]
    miou = [None if row is None else row["miou"] for row in pair]
    size = [None if row is None else row["engine_bytes"] for row in pair]
    p50 = [None if row is None or not latency else row["latency_ms"]["p50"] for row in pair]
    shapes = [_input_shape(report, key) for report in (before, after)]
    same_input = shapes[0] == shapes[1]
    return {
        "method": key[0],
        "seed": key[1],
        "target": key[2],
        "status": status,
        "same_file": None not in pair and pair[0]["sha256"] == pair[1]["sha256"],  # type: ignore[index]
        "same_input": same_input,
        "miou": miou,
        "miou_points": None if miou[0] is None or miou[1] is None else 100 * (miou[1] - miou[0]),
        "p50_ms": p50,
        "p50_ratio": None if p50[0] is None or p50[1] is None or not same_input else p50[1] / p50[0],
        "engine_bytes": size,
    }


def _input_shape(report: Report, key: tuple[str, int, str]) -> list[int] | None:
    for row in report["benchmark"].get("targets", []):
        if (row["method"], row["seed"], row["target"]) == key:
            shape: list[int] | None = row.get("input_shape")
            return shape
    return None


def _runtimes(report: Report) -> dict[tuple[str, int, str], Any]:
    """What every measured engine ran with, its options included."""
    rows = report["benchmark"].get("targets", [])
    return {(row["method"], row["seed"], row["target"]): row.get("runtime") for row in rows}


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
