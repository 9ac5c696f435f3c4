"""Charts of what lies behind report.json: latencies as distribution functions, embeddings, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from export.report.evidence.gathering import Evidence
from export.report.plots import GREY, drawn_names, legend_above, method_colour, tidy

Report = Mapping[str, Any]

# As many as there are markers in the plots of accuracy: two targets that share a line cannot be told apart.
_DASHES: tuple[Literal["-", "--", ":", "-."] | tuple[float, Sequence[float]], ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (8, 2)),
    (0, (1, 3)),
    (0, (6, 2, 1, 2, 1, 2)),
    (0, (2, 1)),
)


def charts(report: Report, evidence: Evidence) -> dict[str, Figure]:
    """Name under `reports/` -> every chart that there is evidence for."""
    makers = {
        "plots/latency_ecdf.png": latency_ecdf,
        "plots/control_ecdf.png": control_ecdf,
        "plots/embeddings.png": embeddings_chart,
        "plots/reliability.png": reliability_chart,
    }
    made = {name: make(report, evidence) for name, make in makers.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


def latency_ecdf(report: Report, evidence: Evidence) -> Figure | None:
    """Share of the queries that took at most so long, of every engine: nothing is left out, the tail is there."""
    if evidence.samples is None or not evidence.samples.engines:
        return None
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    branches = list(dict.fromkeys(branch for branch, _ in evidence.samples.engines))
    targets = list(dict.fromkeys(target for _, target in evidence.samples.engines))
    for (branch, target), values in evidence.samples.engines.items():
        colour = method_colour(report, branch.rpartition("-s")[0])
        style = _DASHES[targets.index(target) % len(_DASHES)]
        axes.ecdf(values, color=colour, linestyle=style, linewidth=1.4)
    axes.set_xlim(left=0)
    axes.set_xlabel("latency of one image, ms")
    axes.set_ylabel("share of the queries")
    tidy(axes)
    methods = dict.fromkeys(branch.rpartition("-s")[0] for branch in branches)
    handles = [Line2D([], [], color=method_colour(report, method), label=method) for method in methods]
    handles += [
        Line2D([], [], color=GREY, linestyle=_DASHES[index % len(_DASHES)], label=target)
        for index, target in enumerate(targets)
    ]
    axes.legend(
        handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=3.6
    )
    return figure


def control_ecdf(report: Report, evidence: Evidence) -> Figure | None:
    """Latency over the baseline's in the same block, of every method and of the baseline against itself (A/A)."""
    if evidence.samples is None or not evidence.samples.ratios:
        return None
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    margin = 100 * report["certificate"]["margin"]
    axes.axvspan(-margin, margin, color="#dfe9f3", zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    handles = []
    everything = np.concatenate(list(evidence.samples.ratios.values()))
    for name, ratios in sorted(evidence.samples.ratios.items(), key=lambda item: item[0] != "control"):
        control = name == "control"
        colour = GREY if control else method_colour(report, name)
        axes.ecdf(100 * (ratios - 1), color=colour, linewidth=2.4 if control else 1.4)
        label = f"{report['baseline']} against itself (A/A control)" if control else name
        handles.append(Line2D([], [], color=colour, linewidth=2.4 if control else 1.4, label=label))
    low, high = 100 * (np.quantile(everything, [0.01, 0.99]) - 1)
    axes.set_xlim(min(low, -2 * margin), max(high, 2 * margin))
    axes.set_xlabel("latency relative to the baseline in the same block, % (1 % of the blocks on each side not shown)")
    axes.set_ylabel("share of the blocks")
    tidy(axes)
    legend_above(axes, handles)
    return figure


def embeddings_chart(report: Report, evidence: Evidence) -> Figure | None:
    """Pixels of every method on the first two principal components of its embeddings, coloured by their label."""
    if not evidence.embeddings:
        return None
    columns = min(3, len(evidence.embeddings))
    rows = -(-len(evidence.embeddings) // columns)
    figure = Figure(figsize=(7.2, 0.5 + 2.5 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    shown: set[int] = set()
    for axes, (method, projection) in zip(panels, evidence.embeddings.items(), strict=False):
        for index in np.unique(projection.classes).tolist():
            chosen = projection.points[projection.classes == index]
            colour = _unit(evidence.palette[index])
            axes.scatter(chosen[:, 0], chosen[:, 1], s=5, color=colour, alpha=0.6, linewidths=0, rasterized=True)
            shown.add(index)
        axes.set_title(f"{method}\n{100 * projection.explained:.0f} % of the variance", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("#f4f6f8")
    for axes in panels[len(evidence.embeddings) :]:
        axes.set_axis_off()
    if len(shown) <= 24:
        names = drawn_names(evidence.class_names)
        handles = [
            Line2D(
                [],
                [],
                marker="o",
                linewidth=0,
                markersize=5,
                color=_unit(evidence.palette[index]),
                label=names[index],
            )
            for index in sorted(shown)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def reliability_chart(report: Report, evidence: Evidence) -> Figure | None:
    """Share of right pixels against the confidence of the engine."""
    found = evidence.reliability
    if found is None:
        return None
    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.add_subplot()
    filled = found.counts > 0
    colour = method_colour(report, report["deployed"])
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    axes.plot(100 * found.confidence[filled], 100 * found.accuracy[filled], "o-", color=colour, linewidth=1.4)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("right, %")
    tidy(axes)
    return figure


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
