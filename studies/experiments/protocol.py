"""An experiment as it is fixed before it runs: `studies/NAME.yaml`, and the params that each of its arms has."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from export.targets.sections import branch_entries, fill_in
from pipeline.params import PARAMS_PATH, Params, read_yaml, validate_params
from pipeline.recipes import load_recipe, merge
from serving.contract.errors import UserError, did_you_mean
from serving.contract.schema import Problems, Require, build
from studies.experiments.measures import OUTCOMES

EXPERIMENTS_DIR = Path("studies")

# In place of a teacher that is not trained yet: of no file.
_UNTRAINED: Mapping[str, object] = {"path": "(trained by the experiment)", "sha256": 64 * "0"}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        method: an entry of the section `methods`: its `loss` and settings.
        params: merged over the experiment's params, in the form of params.yaml.
        ignore_classes: names of classes whose pixels are ignored in training.
        needs: what the arm waits for, in words, while Contrail cannot train it.
    """

    method: Mapping[str, object]
    params: Mapping[str, object] = field(default_factory=dict)
    ignore_classes: tuple[str, ...] = ()
    needs: str = ""


@dataclass(frozen=True)
class Teacher:
    """The larger network that arms learn from whose `teacher` names no file: the runner trains and strips it first.

    It sees what the arms of the pair see, and is trained once for all pairs that see the same.

    Attributes:
        method: as an arm's.
        params: as an arm's.
        seed: of every such training.
    """

    method: Mapping[str, object]
    params: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Comparison:
    """A difference between two arms of one seed, method minus baseline.

    Attributes:
        name: in figures and tables.
        outcome: what of a run is compared, of `studies.experiments.measures.OUTCOMES`.
        method: name of an arm.
        baseline: name of another.
        primary: whether it decides the experiment; the others explain.
        above: what counts: the interval of the mean difference lies above this; or
        below: it lies below this.
    """

    name: str
    outcome: str
    method: str
    baseline: str
    primary: bool = False
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        require = Require()
        require(
            self.outcome in OUTCOMES, f"outcome: unknown outcome {self.outcome!r}{did_you_mean(self.outcome, OUTCOMES)}"
        )
        require(self.method != self.baseline, f"method and baseline: expected two arms, got {self.method!r} for both")
        claims = (self.above is not None) + (self.below is not None)
        require(claims <= 1, "above, below: expected one of them")
        require(claims == 1 or not self.primary, "above, below: missing; a primary comparison says what would count")
        require.done()


@dataclass(frozen=True)
class Pairs:
    """Which seeds, and how many.

    Attributes:
        planned: number of pairs.
        first_seed: of the consecutive seeds.
        see: the effect, in the unit of the primary comparison, that is to be seen; where the standard deviation of
            the planned pairs is too large for it, pairs are added, by that deviation alone, up to
        at_most: this number. Both or neither.
    """

    planned: int
    first_seed: int = 100
    see: float | None = None
    at_most: int | None = None

    def __post_init__(self) -> None:
        require = Require()
        require(self.planned >= 2, f"planned: expected at least 2, got {self.planned}")
        require(self.first_seed >= 0, f"first_seed: expected at least 0, got {self.first_seed}")
        require((self.see is None) == (self.at_most is None), "see, at_most: expected both or neither")
        if self.see is not None and self.at_most is not None:
            require(self.see > 0, f"see: expected above 0, got {self.see}")
            require(self.at_most > self.planned, f"at_most: expected more than the planned {self.planned}")
        require.done()


@dataclass(frozen=True)
class Judged:
    """The images that runs are judged on, after training and once.

    Attributes:
        split: of the dataset.
        every: take every N-th image,
        first: from this one on (0 is the first).
    """

    split: Literal["val", "test"] = "test"
    every: int = 1
    first: int = 0

    def __post_init__(self) -> None:
        require = Require()
        require(self.every >= 1, f"every: expected at least 1, got {self.every}")
        require(0 <= self.first < self.every, f"first: expected in [0, {self.every}), got {self.first}")
        require.done()


@dataclass(frozen=True)
class Choice:
    """Only the comparisons that have the names of other experiments' best: to confirm what those chose.

    Attributes:
        studies: NAMEs of those experiments, whose comparisons have the same names.
        best: how many of them all, by the largest mean difference.
    """

    studies: tuple[str, ...]
    best: int = 1


@dataclass(frozen=True)
class Experiment:
    """What `studies/NAME.yaml` holds.

    Attributes:
        experiment: what the protocol calls it.
        hypothesis: what is expected, and what would count.
        arms: name -> one way to train. All arms of a pair share the seed, and with it start, batches, label subset and
            held-out recording.
        comparisons: of the arms.
        pairs: which seeds, and how many. A label subset (`train_images` without `subset_seed`) is drawn by the pair's.
        recipe: merged over params.yaml; null for none.
        params: merged over the recipe, in the form of params.yaml. Every run gets one thread.
        judged: on which images.
        hold_out_in_turn: recordings of which each pair leaves out one (`hold_out`), in this order.
        choose: for a confirmation.
        teacher: of the arms whose method has a `teacher` without `path` and `sha256`.
    """

    experiment: str
    hypothesis: str
    arms: dict[str, Arm]
    comparisons: tuple[Comparison, ...]
    pairs: Pairs
    recipe: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    judged: Judged = field(default_factory=Judged)
    hold_out_in_turn: tuple[str, ...] = ()
    choose: Choice | None = None
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        require = Require()
        for name in self.arms:
            require(
                re.fullmatch(r"[A-Za-z0-9_]+", name) is not None,
                f"arms.{name}: a part of paths: expected letters, digits and underscores only",
            )
            require(
                self.teacher is not None or not self.is_taught(name),
                f"arms.{name}: its teacher has no path and the experiment trains none; expected a section teacher",
            )
        require(
            self.teacher is None or any(map(self.is_taught, self.arms)),
            "teacher: no arm learns from it; expected an arm with `teacher: {}` in its method",
        )
        for comparison in self.comparisons:
            for side in (comparison.method, comparison.baseline):
                require(
                    side in self.arms,
                    f"comparisons, {comparison.name!r}: no arm {side!r}{did_you_mean(side, self.arms)}",
                )
        require(len(self.comparisons) > 0, "comparisons: expected at least one, got none")
        names = [comparison.name for comparison in self.comparisons]
        require(len(set(names)) == len(names), "comparisons: two have the same name")
        if self.pairs.see is not None:
            primary = sum(comparison.primary for comparison in self.comparisons)
            require(primary == 1, f"pairs.see: is about the primary comparison: expected one, got {primary}")
        require.done()

    @property
    def used_arms(self) -> list[str]:
        """The arms that the comparisons name, in the order of the file."""
        used = {side for comparison in self.comparisons for side in (comparison.method, comparison.baseline)}
        return [name for name in self.arms if name in used]

    def is_taught(self, arm: str) -> bool:
        """Whether an arm learns from the teacher that the experiment trains."""
        teacher = self.arms[arm].method.get("teacher")
        return isinstance(teacher, Mapping) and "path" not in teacher


def path_of(name: str) -> Path:
    """Where an experiment is written down."""
    return EXPERIMENTS_DIR / f"{name}.yaml"


def experiment_names() -> list[str]:
    """The names of all experiments, sorted."""
    return sorted(path.stem for path in EXPERIMENTS_DIR.glob("*.yaml") if "experiment" in read_yaml(path))


def load_experiment(name: str) -> Experiment:
    """Read `studies/NAME.yaml`.

    Raises:
        UserError: there is none, or it holds problems; all of them are listed.
    """
    if name not in experiment_names():
        raise UserError(f"no experiment {name!r}{did_you_mean(name, experiment_names())}")
    problems = Problems()
    experiment = build(Experiment, read_yaml(path_of(name)), str(path_of(name)), problems)
    if experiment is None:
        raise UserError("\n".join(problems))
    return experiment


def best_only(experiment: Experiment, differences: Mapping[str, float | None]) -> Experiment:
    """The experiment with the comparisons alone that its `choose` leaves.

    Args:
        experiment: with a `choose`.
        differences: mean difference by name of comparison, in the experiments that choose.
    """
    assert experiment.choose is not None
    known = {name: value for name, value in differences.items() if value is not None}
    ranked = sorted(
        (comparison for comparison in experiment.comparisons if comparison.name in known),
        key=lambda comparison: -known[comparison.name],
    )
    return dataclasses.replace(experiment, comparisons=tuple(ranked[: experiment.choose.best]))


def arm_params(
    experiment: Experiment, arm: str, seed: int | None = None, *, taught_by: Mapping[str, object] = _UNTRAINED
) -> Params:
    """What an arm trains with.

    Args:
        experiment: of the arm.
        arm: its name; the method is called the same.
        seed: of the pair; None leaves out what depends on it: label subset and held-out recording.
        taught_by: `path` and `sha256` of the teacher that the experiment trains, where the arm learns from it.

    Raises:
        UserError: the params are not valid; all problems are listed.
    """
    config = experiment.arms[arm]
    method = dict(config.method)
    if experiment.is_taught(arm):
        given = method["teacher"]
        assert isinstance(given, Mapping)
        method["teacher"] = {**given, **taught_by}
    return _settled(experiment, arm, method, config.params, seed)


def teacher_params(experiment: Experiment, seed: int | None = None) -> Params:
    """What the teacher of a pair trains with, its method called `teacher`; see `arm_params`."""
    assert experiment.teacher is not None
    return _settled(experiment, "teacher", experiment.teacher.method, experiment.teacher.params, seed)


def _settled(
    experiment: Experiment, name: str, method: Mapping[str, object], own: Mapping[str, object], seed: int | None
) -> Params:
    values = read_yaml(PARAMS_PATH)
    merge(values, load_recipe(experiment.recipe) if experiment.recipe else {})
    merge(values, experiment.params)
    merge(values, own)
    merge(values, {"train": {"threads": 1}})
    if seed is not None:
        options = values.get("prepare", {}).get("options") or {}
        values["prepare"]["options"] = {**options, **_by_seed(experiment, options, seed)}
    values["methods"] = {name: dict(method)}
    values["branches"] = branch_entries({name: {"loss": method.get("loss")}}, [name], [0 if seed is None else seed])
    # An experiment deploys and certifies nothing, but the sections must name a method that there is.
    values["deploy"] = {"method": name}
    values["certify"] = {"baseline": name}
    fill_in(values)
    return validate_params(values, f"arm {name}")


def _by_seed(experiment: Experiment, options: Mapping[str, object], seed: int) -> dict[str, object]:
    """The dataset's options that follow from a pair's seed."""
    found: dict[str, object] = {}
    if "train_images" in options and "subset_seed" not in options:
        found["subset_seed"] = seed
    if experiment.hold_out_in_turn:
        turn = (seed - experiment.pairs.first_seed) % len(experiment.hold_out_in_turn)
        found["hold_out"] = experiment.hold_out_in_turn[turn]
    return found


def trainable_arms(experiment: Experiment, source: Path) -> dict[str, Params]:
    """The params of every arm that a comparison names, without what depends on the seed.

    Raises:
        UserError: arms wait for what Contrail cannot train yet (one line says for what), or are not valid.
    """
    found: dict[str, Params] = {}
    waiting: dict[str, list[str]] = {}
    for arm in experiment.used_arms:
        try:
            found[arm] = arm_params(experiment, arm)
        except UserError:
            if not experiment.arms[arm].needs:
                raise
            waiting.setdefault(experiment.arms[arm].needs, []).append(arm)
    if waiting:
        listed = "; ".join(f"{needs} ({', '.join(arms)})" for needs, arms in waiting.items())
        raise UserError(f"{source}: cannot run yet, arms wait for: {listed}")
    return found
