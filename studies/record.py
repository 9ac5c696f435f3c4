"""Where the runs of a study lie: a JSON per run under runs/, and the study's record, one compact file, in docs/results.

The record is what is committed. It holds every run as it was written, and the table's rows, so that the table can be
made again in a clone that never trained; what the runs left besides (weights, curves) stays under runs/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.layout.branches import branch_name
from serving.contract.errors import UserError
from serving.contract.files import read_json, write_atomically

RESULTS_DIR = Path("docs/results")
WORK_DIR = Path("runs/study")

Run = dict[str, Any]
Runs = dict[str, dict[int, Run]]  # method -> seed -> the run

_LINE = 120
_LEVELS = 4  # the file, its runs, a run, a split of it: what lies deeper stands on one line


def run_path(study: str, method: str, seed: int) -> Path:
    """The JSON of one run."""
    return WORK_DIR / study / f"{branch_name(method, seed)}.json"


def record_path(study: str) -> Path:
    """The study's committed file; its table is beside it, under the same name with the ending .md."""
    return RESULTS_DIR / f"{study}.json"


def load_runs(study: str) -> Runs:
    """Every run of a study: those of its record, and those under runs/, which count where both have one.

    Raises:
        UserError: a file is damaged.
    """
    found: list[Run] = []
    if record_path(study).exists():
        found += read_json(record_path(study), made_by="studies.study table")["runs"]
    found += [read_json(path, made_by="studies.study run") for path in (WORK_DIR / study).glob("*-s*.json")]
    runs: Runs = {}
    for run in sorted(found, key=lambda run: (run["method"], run["seed"])):
        runs.setdefault(run["method"], {})[run["seed"]] = run
    return runs


def write_record(study: str, baseline: str, rows: list[dict[str, Any]], runs: Runs) -> None:
    """Write the study's record: what `load_runs` gave, and the rows of its table.

    Raises:
        UserError: the file cannot be written.
    """
    every = [run for seeds in runs.values() for run in seeds.values()]
    text = compact_json({"baseline": baseline, "rows": rows, "runs": every})
    write_atomically(record_path(study), (text + "\n").encode())


def refuse_other_settings(study: str, runs: Runs, expected: dict[tuple[str, int], str]) -> None:
    """See that the runs that are there were made with the settings of today; a table must not mix two of them.

    Args:
        study: named in the message.
        runs: those that are there.
        expected: the hash of the settings by method and seed.

    Raises:
        UserError: naming all the runs that were made with other settings.
    """
    other = [
        branch_name(method, seed)
        for (method, seed), settings in expected.items()
        if (run := runs.get(method, {}).get(seed)) is not None and run["settings_sha256"] != settings
    ]
    if other:
        raise UserError(
            f"{study}: made with other settings, other data or another version: {', '.join(other)}; to run them anew "
            f"delete {WORK_DIR / study} and {record_path(study)}, to keep them write the other settings to a file and "
            "give it as --over"
        )


def compact_json(value: object, level: int = 0) -> str:
    """JSON with sorted keys that spends a line only where one is worth it.

    What fits in 120 characters stands on one line, and so does whatever lies deeper than a split of a run: a confusion
    matrix per block of frames is one line and not a line per number.

    Example:
        >>> print(compact_json({"methods": [{"name": "cross_entropy", "seeds": [0, 1, 2]}], "note": "x" * 90}))
        {
         "methods": [{"name": "cross_entropy", "seeds": [0, 1, 2]}],
         "note": "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        }
    """
    flat = json.dumps(value, sort_keys=True, allow_nan=False)
    plain = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
    if level == _LEVELS or level + len(flat) <= _LINE or plain or not isinstance(value, dict | list):
        return flat
    indent = " " * (level + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {compact_json(value[key], level + 1)}" for key in sorted(value)]
        opening, closing = "{}"
    else:
        items = [compact_json(item, level + 1) for item in value]
        opening, closing = "[]"
    return f"{opening}\n" + ",\n".join(indent + item for item in items) + f"\n{' ' * level}{closing}"
