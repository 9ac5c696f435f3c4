"""Compare two reports: `python -m export.compare before/report.json after/report.json`.

Latencies are compared only where both were measured on the same hardware.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from export.device import HARDWARE_KEYS
from export.formatting import DASH, megabytes, milliseconds, percent, signed
from export.report import SCHEMA, TARGET_KEYS
from pipeline.artifacts import read_json
from serving.errors import UserError, run_command

Report = Mapping[str, Any]


def load_report(path: Path) -> dict[str, Any]:
    """Read a report.json. Raises UserError when it is missing, or not a report of this schema."""
    report: dict[str, Any] = read_json(path, made_by="report")
    keys = ("schema", "targets", "device", "certificate", "benchmark", "profile")
    missing = [key for key in keys if not isinstance(report, Mapping) or key not in report]
    if missing:
        raise UserError(f"{path}: not a report.json: without {', '.join(missing)}")
    if report["schema"] != SCHEMA:
        raise UserError(f"{path}: report schema {report['schema']!r}; expected {SCHEMA}: run `dvc repro` again")
    wrong = [str(i) for i, row in enumerate(report["targets"]) if not set(TARGET_KEYS) <= set(row)]
    if wrong:
        raise UserError(f"{path}: targets {', '.join(wrong)} lack columns of a report; run `dvc repro` again")
    return report


def hardware_differences(before: Report, after: Report) -> list[str]:
    """What differs between the machines of two reports, in words; empty when latencies may be compared."""
    first, second = before["device"]["hardware"], after["device"]["hardware"]
    return [
        f"{key}: {_shown(first.get(key))} against {_shown(second.get(key))}"
        for key in HARDWARE_KEYS
        if first.get(key) != second.get(key)
    ]


def compare(before: Report, after: Report, *, latency: bool = True) -> list[dict[str, Any]]:
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
    return [_compared(key, pair, before, after, latency) for key, pair in rows.items()]


def notes(before: Report, after: Report) -> list[str]:
    """What a reader must know beside the numbers: other software, profile, data."""
    pairs = {name: (before.get(name), after.get(name)) for name in ("profile", "dataset")}
    first, second = before["device"]["software"], after["device"]["software"]
    pairs |= {name: (first.get(name), second.get(name)) for name in sorted(first.keys() | second.keys())}
    return [f"{name}: {_shown(old)} against {_shown(new)}" for name, (old, new) in pairs.items() if old != new]


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m export.compare", description=__doc__)
    parser.add_argument("before", type=Path, help="a report.json")
    parser.add_argument("after", type=Path, help="another report.json")
    parser.add_argument("--no-latency", action="store_true", help="compare accuracy, size and verdicts only")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    arguments = parser.parse_args()
    before, after = load_report(arguments.before), load_report(arguments.after)
    rows = compare(before, after, latency=not arguments.no_latency)
    verdicts = _verdicts(before, after)
    if arguments.json:
        content = {"targets": rows, "certificate": verdicts, "notes": notes(before, after)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return 0
    console = terminal()
    console.print(_table(rows, latency=not arguments.no_latency))
    for name, (first, second) in verdicts.items():
        console.print(f"certificate of {name}: {first or DASH} -> {second or DASH}")
    for note in notes(before, after):
        console.print(f"note: {note}")
    return 0


def terminal() -> Console:
    """A console as wide as the terminal, or, in a file or a CI log, wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 140)


def _compared(
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


def _verdicts(before: Report, after: Report) -> dict[str, list[str | None]]:
    methods = [report["certificate"].get("methods") or {} for report in (before, after)]
    names = list(dict.fromkeys([*methods[0], *methods[1]]))
    return {name: [side[name]["verdict"] if name in side else None for side in methods] for name in names}


def _table(rows: list[dict[str, Any]], *, latency: bool) -> Table:
    table = Table()
    header = ["method", "seed", "target", "status", "mIoU, %", "points", "MB"]
    for index, name in enumerate([*header, "p50, ms", "ratio"] if latency else header):
        table.add_column(name, justify="left" if index in (0, 2, 3) else "right")
    for row in rows:
        cells = [
            row["method"],
            str(row["seed"]),
            row["target"] + (" (same file)" if row["same_file"] else ""),
            _change(row["status"], str),
            _change(row["miou"], lambda value: percent(value, 2)),
            signed(row["miou_points"], 2),
            _change(row["engine_bytes"], megabytes),
        ]
        if latency:
            ratio = row["p50_ratio"]
            other_input = "" if row["same_input"] else "other input size"
            cells += [_change(row["p50_ms"], milliseconds), other_input or (DASH if ratio is None else f"{ratio:.3f}")]
        table.add_row(*cells)
    return table


def _change(pair: list[Any], form: Any) -> str:
    first, second = (DASH if value is None else form(value) for value in pair)
    return first if first == second else f"{first} -> {second}"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


if __name__ == "__main__":
    run_command(main)
