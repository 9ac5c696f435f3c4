"""`python -m studies.figures`: the page of all experiments, docs/results/studies.md, and its figure, studies.svg.

Both follow from `studies/*.yaml` and the records in docs/results/studies alone. Every pair is a dot, the mean a tick on
its 95 % interval; an experiment without a record is shown as not run. The p values of the primary comparisons of all
finished experiments are adjusted together by Holm's method, and decide; every other comparison explains.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.pages.formatting import DASH, signed
from serving.contract.command import program_name
from serving.contract.errors import run_command
from serving.contract.files import write_atomically
from studies.experiments.checked import checked_record, has_other_settings, settled
from studies.experiments.pairs import differences, is_complete, record_path, seeds_of, wanted_seeds
from studies.experiments.protocol import Experiment, experiment_names, load_experiment, path_of
from studies.power import holm, p_value, smallest_effect
from studies.record import RESULTS_DIR

PAGE = RESULTS_DIR / "studies.md"
FIGURE = RESULTS_DIR / "studies.svg"

_DIGITS = {"points": 2, "nats": 4}
_COLOUR, _GREY = "#0072B2", "#6b7785"
_ROW_INCHES, _PANEL_INCHES, _NOT_RUN_INCHES = 0.27, 0.75, 0.25


@dataclass(frozen=True)
class Shown:
    """An experiment as it stands.

    Attributes:
        name: of its files.
        experiment: the protocol.
        comparisons: those of its record; none where it has not run.
        done: number of pairs there.
        wanted: number of pairs it shall have.
        complete: whether they are all there.
        other_settings: whether its pairs were made with other settings than the protocol gives over the params.yaml
            that lies here: then it decides nothing.
    """

    name: str
    experiment: Experiment
    comparisons: Sequence[dict[str, Any]]
    done: int
    wanted: int
    complete: bool
    other_settings: bool = False

    @property
    def state(self) -> str:
        """How far it is, in words."""
        if not self.comparisons:
            return "not run"
        if self.other_settings:
            return f"{self.done} pairs, made with other settings than those here"
        return f"{self.done} pairs" if self.complete else f"{self.done} of {self.wanted} pairs, unfinished"


def shown_experiments() -> list[Shown]:
    """All experiments, in the order of their numbers.

    Raises:
        UserError: a file is not valid, or a record not sound.
    """

    def order(name: str) -> tuple[str, int, str]:
        letters, digits, rest = re.fullmatch(r"(\D*)(\d*)(.*)", name).groups()  # type: ignore[union-attr]
        return letters, int(digits or 0), rest

    found = []
    for name in sorted(experiment_names(), key=order):
        experiment = load_experiment(name)
        if record_path(name).exists():  # then what it confirms, if anything, was chosen
            experiment = settled(name)
        record = checked_record(name, experiment)
        if record is None or not seeds_of(record):
            found.append(Shown(name, experiment, (), 0, experiment.pairs.planned, False))
            continue
        other = has_other_settings(name, experiment, record)
        wanted = len(wanted_seeds(experiment, record))
        done, complete = len(seeds_of(record)), is_complete(experiment, record)
        found.append(Shown(name, experiment, record["comparisons"], done, wanted, complete, other))
    return found


def adjusted_p_values(experiments: Sequence[Shown]) -> dict[tuple[str, str], float]:
    """P values by Holm of the primary comparisons of all finished experiments: (experiment, comparison) -> p."""
    found = {}
    for one in experiments:
        claims = {comparison.name: comparison for comparison in one.experiment.comparisons}
        for comparison in one.comparisons if one.complete and not one.other_settings else ():
            claim = claims[comparison["name"]]
            if comparison["primary"]:
                values = differences(comparison["pairs"])
                found[one.name, claim.name] = p_value(values, above=claim.above, below=claim.below)
    return holm(found)


def page(experiments: Sequence[Shown]) -> str:
    """The page, as Markdown."""
    adjusted = adjusted_p_values(experiments)
    lines = [
        "# Experiments",
        "",
        "Written by `make study-figures` from the files and records of the experiments; "
        "[protocol.md](protocol.md) says what each is about and what would count.",
        "",
        f"![Paired differences of every experiment, with intervals]({FIGURE.name})",
        "",
        "Difference: method minus baseline, mean over the pairs; above 0 is better, below 0 for a training loss. "
        "95 %: Student's t over the pairs. Could see: the smallest true difference that so many pairs of this standard "
        "deviation show with a probability of 80 %. p: of primary comparisons, by Holm over all finished experiments.",
        "",
        "| experiment | comparison | pairs | difference | 95 % | could see | p | |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for one in experiments:
        title = f"[{one.experiment.experiment}](../../{path_of(one.name).as_posix()})"
        if not one.comparisons:
            lines.append(f"| {title} | | 0 of {one.wanted} | | | | | not run |")
        lines += [
            _line(title, one, comparison, adjusted.get((one.name, comparison["name"])))
            for comparison in one.comparisons
        ]
    lines += ["", "## What was expected", ""]
    lines += [f"- **{one.experiment.experiment}** ({one.state}): {one.experiment.hypothesis}" for one in experiments]
    return "\n".join(lines) + "\n"


def _line(title: str, one: Shown, comparison: dict[str, Any], adjusted: float | None) -> str:
    unit, values = comparison["unit"], differences(comparison["pairs"])
    digits = _DIGITS[unit]
    interval, sees = DASH, DASH
    if comparison["ci95"] is not None:
        interval = " to ".join(signed(bound, digits) for bound in comparison["ci95"])
        sees = f"{smallest_effect(len(values), statistics.stdev(values)):.{digits}f}"
    missing = "made with other settings than those here" if one.other_settings else "pairs are missing"
    verdict = "" if not comparison["primary"] else f"undecided: {missing}"
    if adjusted is not None:
        verdict = "**counts**" if adjusted < 0.05 else "does not count"
    cells = [
        title,
        f"**{comparison['name']}**" if comparison["primary"] else comparison["name"],
        f"{one.done} of {one.wanted}",
        f"{signed(comparison['difference'], digits)} {unit}",
        interval,
        sees,
        "" if adjusted is None else f"{adjusted:.2g}",
        verdict,
    ]
    return "| " + " | ".join(cells) + " |"


def figure(experiments: Sequence[Shown]) -> bytes:
    """The figure as SVG: a panel for each experiment and unit, a row for each comparison; the same bytes every time."""
    panels: list[tuple[Shown, str, list[dict[str, Any]]]] = []
    for one in experiments:
        units = dict.fromkeys(comparison["unit"] for comparison in one.comparisons) or ("",)
        panels += [(one, unit, [row for row in one.comparisons if row["unit"] == unit]) for unit in units]
    heights = [_PANEL_INCHES + _ROW_INCHES * len(rows) if rows else _NOT_RUN_INCHES for _, _, rows in panels]
    drawn = Figure(figsize=(8.0, sum(heights)), layout="constrained")
    grid = drawn.add_gridspec(len(panels), 1, height_ratios=heights)
    for place, (one, unit, rows) in enumerate(panels):
        axes = drawn.add_subplot(grid[place])
        title = f"{one.experiment.experiment}: {one.state}"
        if rows:
            axes.set_title(title, loc="left", fontsize=9)
            _panel(axes, unit, rows)
        else:
            axes.text(0, 0.5, title, fontsize=9, verticalalignment="center")
            axes.set_axis_off()
    # Text stays text, and ids do not depend on chance.
    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "contrail"}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _panel(axes: Axes, unit: str, rows: Sequence[dict[str, Any]]) -> None:
    for place, row in enumerate(rows):
        values = differences(row["pairs"])
        colour = _COLOUR if row["primary"] else _GREY
        (dots,) = axes.plot(
            values, [place] * len(values), "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0
        )
        dots.set_gid(f"pairs of {row['name']}")
        if row["ci95"] is not None:
            axes.plot(row["ci95"], [place] * 2, color=colour, linewidth=2.2, alpha=0.6, solid_capstyle="butt")
        axes.plot([row["difference"]], [place], "|", color=colour, markersize=13, markeredgewidth=2.2)
    axes.axvline(0, color="black", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(f"method - baseline, {unit}", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def main() -> int:
    """Write page and figure."""
    parser = argparse.ArgumentParser(prog=program_name("studies.figures"), description=__doc__.partition("\n")[0])
    parser.parse_args()
    experiments = shown_experiments()
    write_atomically(FIGURE, figure(experiments))
    write_atomically(PAGE, page(experiments).encode())
    sys.stdout.write("".join(f"{one.name}: {one.state}\n" for one in experiments))
    return 0


if __name__ == "__main__":
    run_command(main)
