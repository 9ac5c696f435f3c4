"""Compare two reports: `python -m export.compare before/report.json after/report.json`.

Latencies are compared only where both were measured on the same hardware.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from export.pages.formatting import DASH, megabytes, milliseconds, percent, signed
from export.pages.terminal import terminal
from export.report.changes import notes, target_changes, verdict_changes
from export.report.report import load_report
from serving.contract.command import program_name
from serving.contract.errors import run_command


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog=program_name("export.compare"), description=__doc__)
    parser.add_argument("before", type=Path, help="a report.json")
    parser.add_argument("after", type=Path, help="another report.json")
    parser.add_argument("--no-latency", action="store_true", help="compare accuracy, size and verdicts only")
    parser.add_argument("--json", action="store_true", help="write JSON to standard output")
    arguments = parser.parse_args()
    before, after = load_report(arguments.before), load_report(arguments.after)
    rows = target_changes(before, after, latency=not arguments.no_latency)
    changes = verdict_changes(before, after)
    if arguments.json:
        content = {"targets": rows, "certificate": changes, "notes": notes(before, after)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return 0
    console = terminal()
    console.print(_table(rows, latency=not arguments.no_latency))
    for name, (first, second) in changes.items():
        console.print(f"certificate of {name}: {first or DASH} -> {second or DASH}")
    for note in notes(before, after):
        console.print(f"note: {note}")
    return 0


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


if __name__ == "__main__":
    run_command(main)
