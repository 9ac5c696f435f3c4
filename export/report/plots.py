"""The report's plots, made from report.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rcParams
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from export.pages.formatting import shortened, signed
from export.report.series import accuracy_series, class_names

Report = Mapping[str, Any]

# Names of classes and methods are no formulas, whatever dollars they hold. Every text reads this as it is made.
rcParams["text.parse_math"] = False

# Colours that stay apart for colour-blind readers (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b7785"
# Quantity of the curves -> what its axis says, and the factor to that unit.
_CURVE_LABELS = {"cross_entropy": ("cross entropy", 1.0), "validation_miou": ("validation mIoU, %", 100.0)}
_ROW_INCHES = 0.46
_LONGEST_NAME = 40  # characters of a label
_PART_COLOURS = (*COLOURS, "#F0E442", GREY, "#b0b8c0", "#8c564b")  # of the parts of a training's time
_PERCENTILE_MARKERS = {"p50": "o", "p90": "|", "p99": "x"}


def plots(report: Report) -> dict[str, Figure]:
    """Name under `reports/` -> every plot that the report has data for."""
    makers: dict[str, Callable[[Report], Figure | None]] = {
        "plots/certificate.png": certificate_plot,
        "plots/latency.png": latency_plot,
        "plots/tradeoff.png": tradeoff_plot,
        "plots/size.png": size_plot,
        "plots/classes.png": classes_plot,
        "plots/training.png": training_plot,
        "plots/training_time.png": training_time_plot,
    }
    made = {name: make(report) for name, make in makers.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


def certificate_plot(report: Report) -> Figure | None:
    """Ratio of latencies per comparison: pairs as dots, interval as a bar, margin as a band."""
    certificate = report["certificate"]
    entries = {"control": certificate.get("control") or {}}
    entries |= {name: entry["latency"] for name, entry in (certificate.get("methods") or {}).items()}
    shown = {name: entry for name, entry in entries.items() if entry.get("ratio") is not None}
    if not shown:
        return None
    figure, axes = _rows(len(shown))
    margin = 100 * certificate["margin"]
    axes.axvspan(-margin, margin, color="#dfe9f3", zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for row, (name, entry) in enumerate(shown.items()):
        colour = GREY if name == "control" else method_colour(report, name)
        dots = [100 * (ratio - 1) for ratio in entry["pair_ratios"]]
        axes.scatter(dots, [row + 0.16] * len(dots), s=14, color=colour, alpha=0.45, linewidths=0, zorder=2)
        centre = 100 * (entry["ratio"] - 1)
        if entry["ci95"] is not None:
            low, high = (100 * (bound - 1) for bound in entry["ci95"])
            axes.plot([low, high], [row - 0.12] * 2, color=colour, linewidth=3, solid_capstyle="butt", zorder=3)
        axes.plot([centre], [row - 0.12], "D", color=colour, markersize=6, markeredgecolor="white", zorder=4)
    axes.set_yticks(range(len(shown)), [_ratio_label(name, entry) for name, entry in shown.items()])
    axes.set_xlabel("latency relative to the baseline, %")
    axes.xaxis.set_major_formatter(lambda value, _: signed(value, 1))
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.1 * margin), max(high, 1.1 * margin))
    handles: list[Artist] = [
        Line2D([], [], marker="D", color=GREY, linewidth=3, markeredgecolor="white", label="median and 95 % interval"),
        Line2D([], [], marker="o", color=GREY, alpha=0.45, linewidth=0, markersize=4, label="one session pair"),
        Patch(color="#dfe9f3", label=f"margin ±{margin:g} %"),
    ]
    legend_above(axes, handles)
    return figure


def latency_plot(report: Report) -> Figure | None:
    """Percentiles of latency per target, on one axis."""
    rows = [row for row in report["benchmark"].get("targets", []) if row["status"] == "ok" and row["latency_ms"]["p50"]]
    if not rows:
        return None
    figure, axes = _rows(len(rows))
    for place, row in enumerate(rows):
        colour, latency = method_colour(report, row["method"]), row["latency_ms"]
        values = {name: latency[name]["value"] for name in ("p50", "p90", "p99") if latency.get(name)}
        axes.plot([values["p50"], max(values.values())], [place] * 2, color=colour, linewidth=1.2, alpha=0.6)
        axes.plot([latency["p50"]["low"], latency["p50"]["high"]], [place] * 2, color=colour, linewidth=7, alpha=0.35)
        for name, marker in _PERCENTILE_MARKERS.items():
            if name in values:
                axes.plot([values[name]], [place], marker, color=colour, markersize=6, markeredgewidth=1.5)
    labels = {"p50": "p50, with its 95 % interval", "p90": "p90", "p99": "p99"}
    legend_above(
        axes,
        [
            Line2D(
                [], [], marker=marker, color=GREY, linewidth=0, markersize=6, markeredgewidth=1.5, label=labels[name]
            )
            for name, marker in _PERCENTILE_MARKERS.items()
        ],
    )
    axes.set_yticks(range(len(rows)), [_row_label(report, row) for row in rows])
    axes.set_xlim(left=0)
    axes.set_xlabel("latency of one image, ms")
    return figure


def tradeoff_plot(report: Report) -> Figure | None:
    """Accuracy against median latency, one point per engine."""
    rows = [row for row in _working(report) if row["latency_ms"]["p50"] is not None]
    return _accuracy_against(
        report, rows, [row["latency_ms"]["p50"] for row in rows], "median latency of one image, ms"
    )


def size_plot(report: Report) -> Figure | None:
    """Accuracy against the size of the engine's file, one point per engine."""
    rows = [row for row in _working(report) if row["engine_bytes"] is not None]
    return _accuracy_against(report, rows, [row["engine_bytes"] / 1e6 for row in rows], "size of the engine, MB")


def _working(report: Report) -> list[Mapping[str, Any]]:
    return [row for row in report["targets"] if row["status"] == "ok" and row["miou"] is not None]


def _accuracy_against(
    report: Report, rows: Sequence[Mapping[str, Any]], values: Sequence[float], label: str
) -> Figure | None:
    if len(rows) < 2:
        return None
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    markers = {target: "osD^vPX*"[index % 8] for index, target in enumerate(dict.fromkeys(r["target"] for r in rows))}
    for row, value in zip(rows, values, strict=True):
        axes.plot(
            [value],
            [100 * row["miou"]],
            markers[row["target"]],
            color=method_colour(report, row["method"]),
            markersize=9,
            markeredgecolor="white",
            alpha=0.9,
        )
    methods = dict.fromkeys(row["method"] for row in rows)
    handles: list[Artist] = [Patch(color=method_colour(report, method), label=method) for method in methods]
    handles += [
        Line2D([], [], marker=marker, color=GREY, linewidth=0, label=target) for target, marker in markers.items()
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlim(left=0, right=1.15 * max(values))
    axes.margins(y=0.25)
    axes.set_xlabel(label)
    axes.set_ylabel("mIoU, %")
    tidy(axes)
    return figure


def classes_plot(report: Report) -> Figure | None:
    """IoU per class of the baseline and of every method; what was met with other seeds is paler."""
    series = accuracy_series(report)
    if not series:
        return None
    names = class_names(report)
    figure, axes = _rows(len(names), inches=max(0.3, 0.14 * len(series) + 0.1))
    height = 0.8 / len(series)
    handles = []
    for index, each in enumerate(series):
        places = [row + (index - (len(series) - 1) / 2) * height for row in range(len(names))]
        widths = [100 * (value or 0.0) for value in each.iou]
        colour, alpha = method_colour(report, each.method), max(0.3, 1 - 0.45 * each.group)
        axes.barh(places, widths, height=0.9 * height, color=colour, alpha=alpha)
        handles.append(Patch(color=colour, alpha=alpha, label=each.method + each.seeds))
    axes.set_yticks(range(len(names)), drawn_names(names))
    axes.set_xlim(0, 100)
    axes.set_xlabel("IoU, %")
    legend_above(axes, handles)
    return figure


def training_plot(report: Report) -> Figure | None:
    """Cross entropy and validation mIoU of every branch over the iterations, one panel each."""
    curves = report.get("curves") or {}
    panels = [name for name in _CURVE_LABELS if curves.get(name)]
    if not panels:
        return None
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    branches = list(dict.fromkeys(branch for name in panels for branch in curves[name]))
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        label, factor = _CURVE_LABELS[name]
        for branch, points in curves[name].items():
            steps, values = zip(*points, strict=True)
            shown = [factor * value for value in values]
            # Branches of one method share its colour; each of them is a line.
            axes.plot(steps, shown, marker=".", color=method_colour(report, branch.rpartition("-s")[0]), linewidth=1.4)
        axes.set_xlabel("iteration")
        axes.set_ylabel(label)
        tidy(axes)
    methods = dict.fromkeys(branch.rpartition("-s")[0] for branch in branches)
    figure.legend(
        handles=[Patch(color=method_colour(report, method), label=method) for method in methods],
        loc="outside upper center",
        ncols=min(4, len(methods)),
        frameon=False,
        fontsize=8,
    )
    return figure


def training_time_plot(report: Report) -> Figure | None:
    """Seconds of each part per iteration, epoch by epoch, a panel for every training whose time is known."""
    rows = [row for row in report.get("training", ()) if (row.get("time") or {}).get("epochs")]
    if not rows:
        return None
    columns = min(3, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(7.2, 0.7 + 1.9 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    parts = [part for part in rows[0]["time"]["seconds_per_part"] if any(_took(row, part) for row in rows)]
    for axes, row in zip(panels, rows, strict=False):
        epochs = row["time"]["epochs"]
        edges = [0, *(epoch["iteration"] for epoch in epochs)]
        # A step from edge to edge: both ends of an epoch have its height.
        places = np.repeat(edges, 2)[1:-1]
        lengths = np.maximum(np.diff(edges), 1)
        seconds = np.array([[epoch["seconds"].get(part, 0.0) for epoch in epochs] for part in parts])
        heights = np.repeat(seconds / lengths, 2, axis=1)
        axes.stackplot(places, heights, colors=[_PART_COLOURS[parts.index(part)] for part in parts])
        axes.set_title(f"{row['method']}, seed {row['seed']}", fontsize=8)
        axes.set_xlim(edges[0], edges[-1])
        tidy(axes)
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("iteration", fontsize=9)
    figure.supylabel("seconds per iteration", fontsize=9)
    figure.legend(
        handles=[
            Patch(color=colour, label=part.replace("_", " "))
            for colour, part in zip(_PART_COLOURS, parts, strict=False)
        ],
        loc="outside upper center",
        ncols=min(5, len(parts)),
        frameon=False,
        fontsize=8,
    )
    return figure


def _took(row: Mapping[str, Any], part: str) -> bool:
    return any(epoch["seconds"].get(part) for epoch in row["time"]["epochs"])


def _rows(count: int, inches: float = _ROW_INCHES) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 1.1 + inches * count), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(count - 0.4, -0.6)
    tidy(axes, "x")
    axes.tick_params(axis="y", length=0)
    return figure, axes


def drawn_names(names: Sequence[str]) -> list[str]:
    """Names of classes as labels: shortened, and by number where the font cannot draw them."""
    font = get_font(findfont(FontProperties()))
    return [
        shortened(name, _LONGEST_NAME) if all(font.get_char_index(ord(each)) for each in name) else f"class {index}"
        for index, name in enumerate(names)
    ]


def tidy(axes: Axes, grid: Literal["x", "both"] = "both") -> None:
    """A light grid, and no frame but the axes."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)


def legend_above(axes: Axes, handles: Sequence[Artist]) -> None:
    """The legend in rows above the plot."""
    columns = min(4, len(handles))
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, fontsize=8
    )


def method_colour(report: Report, method: str) -> str:
    """The colour of a method, the same in every plot of a report."""
    methods = list(dict.fromkeys([report["baseline"], *(row["method"] for row in report["targets"])]))
    return COLOURS[methods.index(method) % len(COLOURS)] if method in methods else GREY


def _ratio_label(name: str, entry: Mapping[str, Any]) -> str:
    text = "control (A/A)" if name == "control" else name
    return f"{text}\n{entry['verdict']}"


def _row_label(report: Report, row: Mapping[str, Any]) -> str:
    several = len({other["seed"] for other in report["targets"]}) > 1
    return f"{row['method']}{' seed ' + str(row['seed']) if several else ''}\n{row['target']}"
