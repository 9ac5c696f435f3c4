"""The record of an experiment, `docs/results/studies/NAME.json`: every finished pair, and what follows from them.

    experiment, hypothesis    as in studies/NAME.yaml
    commit                    of the newest pair
    comparisons               [{name, primary, unit, pairs: [{seed, baseline, method}], difference, ci95}]
    provenance                settings_sha256, data_sha256; for every pair its commits, the device of all
                              its arms, the CPU minutes of its runs and, where arms learned from a teacher that the
                              experiment trained, the sha256 of it by arm

`difference` is the mean of method - baseline over the pairs and `ci95` Student's t interval of it (null for one pair);
both follow from the pairs as they stand there, rounded, so that anyone can compute them again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.evaluation.paired import t_interval
from serving.contract.errors import UserError
from serving.contract.files import read_json, write_atomically
from studies.experiments.measures import OUTCOMES
from studies.experiments.protocol import Experiment
from studies.power import pairs_needed
from studies.record import RESULTS_DIR, compact_json

STUDIES_DIR = RESULTS_DIR / "studies"

Record = dict[str, Any]

_DECIMALS = {"points": 4, "nats": 6}


def record_path(name: str) -> Path:
    """The committed file of an experiment."""
    return STUDIES_DIR / f"{name}.json"


def read_record(name: str) -> Record:
    """What was recorded so far, as the file has it. Raises UserError when it cannot be read."""
    record: Record = read_json(record_path(name), made_by=f"studies.run {name}")
    return record


def new_record(experiment: Experiment, *, settings_sha256: str, data_sha256: str) -> Record:
    """A record without pairs.

    Args:
        experiment: whose it is.
        settings_sha256: of everything in the protocol that determines a pair.
        data_sha256: of the dataset.
    """
    return {
        "experiment": experiment.experiment,
        "hypothesis": experiment.hypothesis,
        "commit": None,
        "comparisons": [
            {
                "name": comparison.name,
                "primary": comparison.primary,
                "unit": OUTCOMES[comparison.outcome].unit,
                "pairs": [],
                "difference": None,
                "ci95": None,
            }
            for comparison in experiment.comparisons
        ],
        "provenance": {"settings_sha256": settings_sha256, "data_sha256": data_sha256, "pairs": []},
    }


def refuse_another_protocol(name: str, record: Record, *, settings_sha256: str, data_sha256: str) -> None:
    """See that the pairs that are there were made by the protocol of today, with its data: never are two mixed.

    Args:
        name: of the experiment.
        record: its record.
        settings_sha256: of the protocol of today.
        data_sha256: of the data of today.

    Raises:
        UserError: they were not; the message says what differs.
    """
    now, made = {"settings": settings_sha256, "data": data_sha256}, record["provenance"]
    other = [what for what, sha256 in now.items() if made[f"{what}_sha256"] != sha256]
    if other:
        raise UserError(
            f"{record_path(name)}: its {len(seeds_of(record))} pairs were made with other {' and '.join(other)} than "
            f"{name} has now; go on from the version that made them (commit {record['commit']}), or give what changed "
            "another name"
        )


def seeds_of(record: Record) -> list[int]:
    """The seeds of the finished pairs."""
    return [pair["seed"] for pair in record["provenance"]["pairs"]]


def add_pair(
    record: Record,
    experiment: Experiment,
    seed: int,
    outcomes: Mapping[str, Mapping[str, float]],
    *,
    commits: list[str | None],
    device: str,
    cpu_minutes: Mapping[str, float],
    teachers: Mapping[str, str] | None = None,
) -> Record:
    """The record with one more pair in every comparison, sorted by seed.

    Args:
        record: without that seed.
        experiment: whose record it is.
        seed: of the pair.
        outcomes: arm -> outcome -> value.
        commits: what the runs were made with, the newest last.
        device: what all of them were trained on.
        cpu_minutes: arm -> what its run took.
        teachers: arm -> sha256 of its teacher, of those that had one.
    """
    comparisons = []
    for comparison, before in zip(experiment.comparisons, record["comparisons"], strict=True):
        unit = before["unit"]
        pair = {
            "seed": seed,
            "baseline": round(outcomes[comparison.baseline][comparison.outcome], _DECIMALS[unit]),
            "method": round(outcomes[comparison.method][comparison.outcome], _DECIMALS[unit]),
        }
        pairs = sorted([*before["pairs"], pair], key=lambda each: each["seed"])
        comparisons.append(before | {"pairs": pairs} | summary(pairs, unit))
    made = {"seed": seed, "commits": commits, "device": device, "cpu_minutes": dict(cpu_minutes)}
    if teachers:
        made["teachers"] = dict(teachers)
    provenance = record["provenance"] | {
        "pairs": sorted([*record["provenance"]["pairs"], made], key=lambda each: each["seed"])
    }
    return record | {"commit": commits[-1], "comparisons": comparisons, "provenance": provenance}


def summary(pairs: list[dict[str, Any]], unit: str) -> dict[str, Any]:
    """`difference` and `ci95` of pairs, the differences as they stand in the file.

    Args:
        pairs: at least one.
        unit: `points` or `nats`; decides how many decimals a record keeps.
    """
    values, decimals = differences(pairs), _DECIMALS[unit]
    if len(values) < 2:
        return {"difference": round(values[0], decimals), "ci95": None}
    interval = t_interval(values)
    return {
        "difference": round(interval.difference, decimals),
        "ci95": [round(interval.low, decimals), round(interval.high, decimals)],
    }


def differences(pairs: list[dict[str, Any]]) -> list[float]:
    """Method minus baseline of every pair."""
    return [pair["method"] - pair["baseline"] for pair in pairs]


def wanted_seeds(experiment: Experiment, record: Record) -> list[int]:
    """The seeds that the experiment shall have: the planned ones, and those that are added once these are there.

    How many are added follows from the standard deviation of the planned pairs of the primary comparison, and from
    nothing else; it is settled by them and does not change as pairs are added.
    """
    pairs = experiment.pairs
    planned = range(pairs.first_seed, pairs.first_seed + pairs.planned)
    if pairs.see is None or pairs.at_most is None or not set(planned) <= set(seeds_of(record)):
        return list(planned)
    (primary,) = (comparison for comparison in record["comparisons"] if comparison["primary"])
    values = differences([pair for pair in primary["pairs"] if pair["seed"] in planned])
    mean = sum(values) / len(values)
    sd = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    count = pairs_needed(sd, see=pairs.see, planned=pairs.planned, at_most=pairs.at_most)
    return list(range(pairs.first_seed, pairs.first_seed + count))


def is_complete(experiment: Experiment, record: Record | None) -> bool:
    """Whether every wanted pair is there."""
    return record is not None and set(wanted_seeds(experiment, record)) <= set(seeds_of(record))


def write_record(name: str, record: Record) -> None:
    """Write the record, whole or not at all."""
    write_atomically(record_path(name), (compact_json(record) + "\n").encode())


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock that the system gives back however the process ends; True when it is held.

    Args:
        path: of the lock's file, which stays.
        wait: for whoever holds it; without, False is what is given when somebody does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
