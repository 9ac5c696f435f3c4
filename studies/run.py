"""`python -m studies.run NAME`: run the experiment that `studies/NAME.yaml` fixes, or go on with it.

    python -m studies.run e3                 every pair that is not in docs/results/studies/e3.json yet
    python -m studies.run e3 --pairs 2       two of them, then stop
    python -m studies.run e3 --plan          say what there is to do; refuse what cannot run yet

A pair is one seed with all arms. A finished pair is appended to the record at once; killed at any time, the command
goes on with the run that it was at. Two processes (the command, started twice) share the seeds between them. Pairs of
another protocol or of other data are never mixed with those that are there: that is refused before anything runs. The
arms of a pair are trained by the same code, on the same kind of device: what an interrupted call left is trained anew
where either is another.

What a run leaves besides lies under runs/experiments; its weights are deleted when it has been judged.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from export.report.inputs import commit
from pipeline.compute.devices import use_threads
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from studies.experiments.checked import checked_record, settled
from studies.experiments.pairs import (
    STUDIES_DIR,
    Record,
    add_pair,
    locked,
    new_record,
    record_path,
    refuse_another_protocol,
    seeds_of,
    wanted_seeds,
    write_record,
)
from studies.experiments.protocol import Experiment, path_of, teacher_params, trainable_arms
from studies.experiments.runs import WORK_DIR, Workplace, code_sha256, data_sha256, run_arm, settings_sha256


@dataclass(frozen=True)
class Opened:
    """An experiment that can run, with its record as it was when it was opened.

    Attributes:
        name: of its files.
        experiment: the protocol.
        empty: its record without pairs: the hashes that every pair must have been made with.
        workplace: where its runs lie.
    """

    name: str
    experiment: Experiment
    empty: Record
    workplace: Workplace

    def record(self) -> Record:
        """The record as it is now.

        Raises:
            UserError: it is not sound, or holds pairs of another protocol or of other data.
        """
        found = checked_record(self.name, self.experiment)
        if found is None:
            return self.empty
        settings = self.empty["provenance"]["settings_sha256"]
        refuse_another_protocol(self.name, found, settings_sha256=settings, data_sha256=self.workplace.data)
        return found


def open_experiment(name: str) -> Opened:
    """Everything that can be refused is refused here, before anything is trained.

    Raises:
        UserError: as `settled` and `trainable_arms`; other settings or data than those of the pairs that are there.
    """
    experiment = settled(name)
    arms = trainable_arms(experiment, path_of(name))
    settings = settings_sha256(experiment, arms)
    data = data_sha256(next(iter(arms.values())).prepare, WORK_DIR / name / "prepared")
    opened = Opened(
        name,
        experiment,
        new_record(experiment, settings_sha256=settings, data_sha256=data),
        Workplace(WORK_DIR / name / f"{settings[:8]}-{data[:8]}", commit_of_code(), data, code_sha256()),
    )
    opened.record()
    return opened


def commit_of_code() -> str | None:
    """The checked-out commit, with `-dirty` where code differs from it: the records change while pairs are added."""
    return commit([STUDIES_DIR.as_posix()])


def run_pair(opened: Opened, seed: int) -> None:
    """Run all arms with a seed and append the pair to the record."""
    runs = {arm: run_arm(opened.experiment, arm, seed, opened.workplace) for arm in opened.experiment.used_arms}
    with locked(opened.workplace.folder / "record.lock", wait=True):
        record = add_pair(
            opened.record(),
            opened.experiment,
            seed,
            {arm: run["outcomes"] for arm, run in runs.items()},
            commits=list(dict.fromkeys(run["commit"] for run in runs.values())),
            device=next(iter(runs.values()))["device"],
            cpu_minutes={arm: run["cpu_minutes"] for arm, run in runs.items()},
            teachers={arm: run["teacher_sha256"] for arm, run in runs.items() if "teacher_sha256" in run},
        )
        write_record(opened.name, record)
    done, wanted = len(seeds_of(record)), len(wanted_seeds(opened.experiment, record))
    sys.stdout.write(f"{record_path(opened.name)}: pair {seed} appended, {done} of {wanted}\n")
    sys.stdout.flush()


def run(opened: Opened, at_most: int | None) -> None:
    """Run pairs until all are there, other processes have the rest, or `at_most` were run."""
    use_threads(1)
    count, went_on = 0, True
    while went_on:
        went_on = False
        for seed in wanted_seeds(opened.experiment, opened.record()):
            if at_most is not None and count >= at_most:
                return
            with locked(opened.workplace.folder / f"{seed}.lock", wait=False) as ours:
                if ours and seed not in seeds_of(opened.record()):
                    run_pair(opened, seed)
                    count, went_on = count + 1, True


def left_behind(opened: Opened) -> list[str]:
    """A line for every folder of finished runs that is not gone on with, since its settings or data are others."""
    ours = opened.workplace.folder
    lines = []
    for folder in sorted(ours.parent.glob("*-*")):
        count = len(list(folder.glob("*/outcome.json")))
        if folder == ours or not count:
            continue
        pairs = zip(("settings", "data"), folder.name.split("-"), ours.name.split("-"), strict=False)
        other = " and ".join(what for what, theirs, own in pairs if theirs != own)
        lines.append(f"{folder}: {count} finished runs with other {other} than now; they are left, and run anew here")
    return lines


def plan(opened: Opened) -> str:
    """What there is to do, in words."""
    experiment, record = opened.experiment, opened.record()
    done, wanted = seeds_of(record), wanted_seeds(experiment, record)
    minutes = [sum(pair["cpu_minutes"].values()) for pair in record["provenance"]["pairs"]]
    lines = [
        *left_behind(opened),
        f"{experiment.experiment} ({path_of(opened.name)}): {len(done)} of {len(wanted)} pairs, seeds {wanted[0]} to "
        f"{wanted[-1]}; arms: {', '.join(experiment.used_arms)}",
    ]
    missing = [seed for seed in wanted if seed not in done]
    made_by = opened.workplace.commit or ""
    if missing and made_by.endswith("-dirty"):
        lines.append(f"warning: code differs from its commit; pairs will name {made_by}, which nobody can check out")
    if experiment.teacher is not None and missing and any(map(experiment.is_taught, experiment.used_arms)):
        teacher = teacher_params(experiment)
        lines.append(
            f"first a teacher, {teacher.model.backbone}, {teacher.train.iterations} iterations, where it is not there "
            "yet for what the pair sees"
        )
    if minutes:
        left = (len(wanted) - len(done)) * sum(minutes) / len(minutes)
        lines.append(f"{sum(minutes) / len(minutes):.1f} CPU minutes a pair; about {left:.0f} left")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run, go on, or say what there is to do."""
    parser = argparse.ArgumentParser(prog=program_name("studies.run"), description=__doc__.partition("\n")[0])
    parser.add_argument("name", metavar="NAME", help="of studies/NAME.yaml")
    parser.add_argument("--pairs", type=int, metavar="N", help="run N pairs at most (default: all that are left)")
    parser.add_argument("--plan", action="store_true", help="run nothing; say what there is to do")
    arguments = parser.parse_args()
    if arguments.pairs is not None and arguments.pairs < 1:
        raise UserError(f"--pairs: expected at least 1, got {arguments.pairs}")
    opened = open_experiment(arguments.name)
    sys.stdout.write(plan(opened))
    sys.stdout.flush()
    if not arguments.plan:
        run(opened, arguments.pairs)
    return 0


if __name__ == "__main__":
    run_command(main)
