"""An experiment and its record as files have them, checked: a record that the runner did not write so decides nothing.

Records are committed, merged and edited like any other text. What is shown of them and what is added to them goes
through `checked_record`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.contract.errors import UserError
from serving.contract.schema import Problems, build
from studies.experiments.measures import OUTCOMES
from studies.experiments.pairs import (
    Record,
    is_complete,
    read_record,
    record_path,
    seeds_of,
    summary,
    wanted_seeds,
)
from studies.experiments.protocol import Experiment, best_only, load_experiment, path_of, trainable_arms
from studies.experiments.runs import settings_sha256


@dataclass(frozen=True)
class _Pair:
    seed: int
    baseline: float
    method: float


@dataclass(frozen=True)
class _Comparison:
    name: str
    primary: bool
    unit: str
    pairs: tuple[_Pair, ...]
    difference: float
    ci95: tuple[float, ...] | None


@dataclass(frozen=True)
class _Made:
    seed: int
    commits: tuple[str | None, ...]
    device: str
    cpu_minutes: dict[str, float]
    teachers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Provenance:
    settings_sha256: str
    data_sha256: str
    pairs: tuple[_Made, ...]


@dataclass(frozen=True)
class _Recorded:
    experiment: str
    hypothesis: str
    commit: str | None
    comparisons: tuple[_Comparison, ...]
    provenance: _Provenance


def settled(name: str) -> Experiment:
    """The experiment, where it confirms what another chooses with the comparisons that were chosen.

    Raises:
        UserError: there is no such experiment, it is not valid, nothing is chosen yet, or what chose is not sound.
    """
    experiment = load_experiment(name)
    if experiment.choose is None:
        return experiment
    found: dict[str, float | None] = {}
    unfinished = []
    for chooser in experiment.choose.studies:
        choosing = load_experiment(chooser)
        record = checked_record(chooser, choosing)
        if record is None or not is_complete(choosing, record):
            unfinished.append(str(path_of(chooser)))
        else:
            found |= {comparison["name"]: comparison["difference"] for comparison in record["comparisons"]}
    if unfinished:
        raise UserError(
            f"{path_of(name)}: confirms what {' and '.join(unfinished)} choose, whose pairs are not all there"
        )
    return best_only(experiment, found)


def has_other_settings(name: str, experiment: Experiment, record: Record) -> bool:
    """Whether pairs of a settled experiment were made with other settings than it has over the params.yaml of today."""
    try:
        settings = settings_sha256(experiment, trainable_arms(experiment, path_of(name)))
    except UserError:  # over another dataset's or network's params.yaml an arm need not even be valid
        return True
    return bool(record["provenance"]["settings_sha256"] != settings)


def checked_record(name: str, experiment: Experiment) -> Record | None:
    """The record of a settled experiment, whatever its settings, or None where nothing has run.

    Raises:
        UserError: it is damaged, has other comparisons or seeds than the protocol, or does not follow from its pairs;
            all problems are listed.
    """
    if not record_path(name).exists():
        return None
    record = read_record(name)
    problems = Problems()
    if not isinstance(record, Mapping) or not record:
        problems.add(str(record_path(name)), "expected the record of an experiment")
    else:
        found = build(_Recorded, record, str(record_path(name)), problems)
        if found is not None and not problems:
            _compare(found, experiment, record, problems)
    if problems:
        told = "take the committed file again, or remove it and run the experiment anew"
        raise UserError("\n".join([*problems, f"{record_path(name)}: is not as studies.run writes it: {told}"]))
    return record


def _compare(found: _Recorded, experiment: Experiment, record: Record, problems: Problems) -> None:
    """Add what a record of the right form contradicts: the protocol's comparisons, its own seeds or its own pairs."""
    named = [(one.name, one.primary, OUTCOMES[one.outcome].unit) for one in experiment.comparisons]
    theirs = [(one.name, one.primary, one.unit) for one in found.comparisons]
    if named != theirs:
        problems.add("comparisons", f"expected {named} (name, primary, unit) as in the protocol, got {theirs}")
        return
    seeds = seeds_of(record)
    repeated = [seed for seed, count in Counter(seeds).items() if count > 1]
    if repeated:
        problems.add("provenance.pairs", f"seeds there more than once: {repeated}")
    for comparison, values in zip(found.comparisons, record["comparisons"], strict=True):
        where = f"comparisons, {comparison.name!r}"
        if [pair.seed for pair in comparison.pairs] != seeds:
            problems.add(where, f"expected the seeds of provenance, {seeds}, got {[p.seed for p in comparison.pairs]}")
        elif seeds and (expected := summary(values["pairs"], values["unit"])) != {key: values[key] for key in expected}:
            kept = {key: values[key] for key in expected}
            problems.add(where, f"expected {expected}, which follows from its pairs, got {kept}")
    if not problems and not set(seeds) <= set(wanted_seeds(experiment, record)):
        extra = sorted(set(seeds) - set(wanted_seeds(experiment, record)))
        problems.add("provenance.pairs", f"seeds {extra} are no pairs of the protocol")
