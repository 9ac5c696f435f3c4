"""The parts of a report as blocks: engines, training, classes, checks, benchmark and machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from export.machine.hardware import device_summary
from export.pages.document import Block, Bullets, Heading, Paragraph, Table
from export.pages.formatting import (
    DASH,
    duration,
    escaped,
    interval,
    megabytes,
    milliseconds,
    number,
    percent,
    prose,
    shortened,
)
from export.report.series import accuracy_series, class_names

Report = Mapping[str, Any]


def origin(report: Report) -> str:
    """What was measured on which data, by which commit."""
    dataset = report["dataset"]
    parts = []
    if dataset:
        images = f"{dataset['images']} " if dataset["images"] else ""
        parts.append(
            f"Accuracy on {images}{dataset['split']} images of `{dataset['name']}`, at the resolution of the labels."
        )
    source = " ".join(
        part
        for part in (
            f"commit `{_short(report['commit'])}`" if report["commit"] else "",
            f"of {report['created']}" if report["created"] else "",
        )
        if part
    )
    parts.append(f"Profile `{report['profile']}`{', ' + source if source else ''}.")
    return " ".join(parts)


def _short(commit: str) -> str:
    return commit[:12] + "-dirty" * commit.endswith("-dirty")


def data_blocks(report: Report) -> list[Block]:
    """What prepare said of the data, where it said anything."""
    said = [
        *(f"**warning**, {prose(warning)}" for warning in report["dataset"].get("warnings") or []),
        *map(prose, report["dataset"].get("notes") or []),
    ]
    return [Heading(2, "Data"), Bullets(said)] if said else []


QUICK = (
    "**quick**: latencies come from brief measurements, and a certificate may end undecided. `profile: release` in "
    "params.yaml measures at least 10 s and 100 queries per engine and goes on until the certificate is decided."
)


def targets_blocks(report: Report) -> list[Block]:
    """One row per engine, and in words what does not work."""
    header = ["method", "target", "precision", "status", "mIoU, %", "drop, points", "agreement, %"]
    header += ["p50, ms", "p90, ms", "p99, ms", "MB"]
    rows = []
    for row in report["targets"]:
        latency = row["latency_ms"]
        rows.append(
            [
                _branch(report, row),
                f"`{row['target']}`",
                row["precision"] or DASH,
                row["status"],
                percent(row["miou"], 2),
                number(row["miou_drop_points"], 3),
                percent(row["agreement"], 3),
                milliseconds(latency["p50"]),
                milliseconds(latency["p90"]),
                milliseconds(latency["p99"]),
                megabytes(row["engine_bytes"]),
            ]
        )
    reasons = [
        f"{_branch(report, row)}, `{row['target']}`: {row['status']}, {prose(shortened(row['reason'] or DASH))}"
        for row in report["targets"]
        if row["status"] != "ok"
    ]
    return [Table(header, rows, left=4), *([Bullets(reasons)] if reasons else [])]


def training_blocks(report: Report) -> list[Block]:
    """One row per training, and what any of them was trained without."""
    rows = [
        [
            f"`{row['method']}`",
            str(row["seed"]),
            percent(row["miou"], 2),
            DASH if row["contrast_steps"] is None else str(row["contrast_steps"]),
            number(row["mean_anchors"], 0),
            duration(row["seconds"]),
        ]
        for row in report["training"]
    ]
    header = ["method", "seed", "val mIoU, %", "contrast steps", "mean anchors", "time"]
    return [Table(header, rows), *left_out_blocks(report["training"])]


def left_out_blocks(trainings: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Which pairs trainings left out because they could not be read, of those that did.

    Args:
        trainings: rows of the report.
    """
    lines = [
        f"**warning**, pairs that `{row['method']}` seed {row['seed']} was trained without, since they could not be "
        f"read (`train.skip_budget` allows it): {len(row['left_out'])}: {escaped(', '.join(row['left_out']))}"
        for row in trainings
        if row.get("left_out")
    ]
    return [Bullets(lines)] if lines else []


def training_time_blocks(report: Report) -> list[Block]:
    """Where the time of the trainings went, of those that ran on this machine, and what is left out of it."""
    timed = [row for row in report["training"] if "time" in row]
    unknown: dict[str, list[str]] = {}
    for row in report["training"]:
        if "time_reason" in row:
            unknown.setdefault(row["time_reason"], []).append(f"`{row['method']}` seed {row['seed']}")
    lines = [f"No times of {', '.join(branches)}: {prose(reason)}." for reason, branches in unknown.items()]
    left_out: list[Block] = [Bullets(lines)] if lines else []
    if not timed:
        return left_out
    totals = {name: sum(_share(row, name) for row in timed) for name in timed[0]["time"]["seconds_per_part"]}
    parts = sorted((name for name, total in totals.items() if total), key=lambda name: -totals[name])
    rows = [
        [
            f"`{row['method']}`",
            str(row["seed"]),
            number(row["time"]["images_per_second"], 1),
            megabytes(row["time"]["peak_memory_bytes"]),
            *(percent(_share(row, part)) for part in parts),
        ]
        for row in timed
    ]
    header = ["method", "seed", "images/s", "peak memory, MB", *(f"{part.replace('_', ' ')}, %" for part in parts)]
    devices = sorted(
        {
            f"{t['device']} in {t['precision']}, {t['threads']} thread{'s' if t['threads'] != 1 else ''}"
            for t in (r["time"] for r in timed)
        }
    )
    said = (
        f"Where the time of the trainings went, on {prose('; '.join(devices))}. Images per second leave out validation "
        "and checkpoints; the memory is the largest of the device, or of the process on a CPU."
    )
    return [Paragraph(said), Table(header, rows), *left_out]


def _share(row: Mapping[str, Any], part: str) -> float:
    seconds: Mapping[str, float] = row["time"]["seconds_per_part"]
    return seconds.get(part, 0.0) / (sum(seconds.values()) or 1.0)


def classes_blocks(report: Report) -> list[Block]:
    """IoU per class on the certified target."""
    series = accuracy_series(report)
    if not series:
        return []
    names = class_names(report)
    rows = [[escaped(name), *(percent(each.iou[index]) for each in series)] for index, name in enumerate(names)]
    rows.append(["**mean**", *(percent(each.miou) for each in series)])
    rows.append(["**mean boundary IoU**", *(percent(each.boundary_iou) for each in series)])
    header = ["class", *(f"`{each.method}`{each.seeds}, IoU %" for each in series)]
    return [Heading(2, "Classes"), Table(header, rows)]


def checks_blocks(report: Report, asked: Collection[str] = ()) -> list[Block]:
    """One row per engine, one column per check, and in words what did not pass.

    Args:
        report: report.json.
        asked: checks that the page explains below `check-NAME`.
    """
    checks = report["checks"]
    if not checks:
        return []
    names = list(dict.fromkeys(check["name"] for check in checks))
    engines: dict[tuple[str, str], dict[str, str]] = {}
    for check in checks:
        engines.setdefault((_branch(report, check), check["target"]), {})[check["name"]] = check["status"]
    rows = [
        [branch, f"`{target}`", *(found.get(name, DASH) for name in names)]
        for (branch, target), found in engines.items()
    ]
    counts: dict[str, int] = {}
    for check in checks:
        counts[check["status"]] = counts.get(check["status"], 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))

    def named(name: str) -> str:
        return f"[{name}](#check-{name})" if name in asked else name

    words = [
        f"{_branch(report, check)}, `{check['target']}`, {named(check['name'])}: {check['status']}, "
        f"{prose(shortened(check['detail']))}"
        for check in checks
        if check["status"] != "pass"
    ]
    return [
        Heading(2, "Checks"),
        Paragraph(f"{len(checks)} checks: {text}."),
        Table(["method", "target", *names], rows, left=2 + len(names)),
        *([Bullets(words)] if words else []),
    ]


def benchmark_blocks(report: Report) -> list[Block]:
    """How every engine was measured, and what its parts take."""
    rows: list[list[str]] = []
    sizes: list[int] = []
    for row in report["benchmark"].get("targets", []):
        if row["status"] != "ok":
            continue
        rates = {entry["batch_size"]: entry["images_per_second"] for entry in row["throughput"]}
        sizes = sizes or list(rates)
        split, p50 = row["split_ms"], row["latency_ms"]["p50"]
        shape = "x".join(map(str, row["input_shape"][1:3])) if row["input_shape"][-1] == 3 else str(row["input_shape"])
        rows.append(
            [
                _branch(report, row) + ("" if row["stable"] else ", warm-up not stable"),
                f"`{row['target']}`" + ("" if row["complete"] else ", cut short"),
                shape,
                str(row["queries"]),
                str(len(row["sessions"])),
                DASH if p50 is None else interval([p50["low"], p50["high"]], 2),
                *(milliseconds(split.get(part)) for part in ("preprocess", "engine", "postprocess")),
                *(number(rates[size]["value"] if rates[size] else None, 1) for size in sizes),
            ]
        )
    if not rows:
        return []
    header = ["method", "target", "input", "queries", "sessions"]
    header += ["p50 interval, ms", "pre, ms", "engine, ms", "post, ms"]
    header += [f"images/s, batch {size}" for size in sizes]
    text = (
        "Fresh sessions of all engines take turns; intervals are clustered by session; no sample is left out. "
        "Pre, engine and post are the parts of `Predictor.predict` on a decoded image."
    )
    return [Heading(2, "Benchmark"), Paragraph(text), Table(header, rows, left=3), *_level_blocks(report)]


def _level_blocks(report: Report) -> list[Block]:
    """How fast each target is at other graph optimisation levels, and what to write where one is faster."""
    found = report["benchmark"].get("optimization") or {}
    levels = list(dict.fromkeys(level for entry in found.values() for level in entry.get("ratios", {})))
    rows = [
        [f"`{target}`", f"`{entry['used']}`"]
        + [_ratio(entry["ratios"].get(level)) for level in levels]
        + [f"`{entry['faster']}`" if entry["faster"] else DASH]
        for target, entry in found.items()
        if entry["status"] == "ok"
    ]
    words = [
        f"`{target}` is faster at another level, at which it has not been checked. This writes it, and checks: "
        f"`dvc exp run -S '++targets.{target}.options.optimization={entry['faster']}'`"
        if entry["status"] == "ok"
        else f"`{target}`: its levels were not compared: {prose(shortened(entry['reason']))}"
        for target, entry in found.items()
        if entry["status"] != "ok" or entry["faster"]
    ]
    if not found:
        return []
    text = (
        "Graph optimisation levels of ONNX Runtime in fresh sessions that take turns: latency over that of the level "
        "which the target runs at, and was checked at. Faster is what gains more than sessions of one file differ by."
    )
    table = [Table(["target", "runs at", *levels, "faster"], rows, left=2)] if rows else []
    return [Paragraph(text), *table, *([Bullets(words)] if words else [])]


def _ratio(ratio: Mapping[str, float] | None) -> str:
    return DASH if ratio is None else f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def _branch(report: Report, row: Mapping[str, Any]) -> str:
    """A row's method, with its seed where there are several."""
    several = len({each["seed"] for each in report["targets"]}) > 1
    return f"`{row['method']}`" + (f" seed {row['seed']}" if several else "")


def _gpus(state: Mapping[str, Any]) -> list[str]:
    """What the GPUs were doing meanwhile, a line each; above all what slowed them down."""
    lines = []
    if state.get("throttled"):
        lines.append("THROTTLED: " + "; ".join(state["throttled"]) + ": these latencies are not the GPU's best")
    for gpu in state.get("gpus_during", []):
        low, middle, high = gpu["sm_mhz"] or (None, None, None)
        told = [f"{low:g} to {high:g} MHz, mostly {middle:g}"] if middle is not None else ["never busy"]
        highest = {"°C": gpu["celsius"], "W": gpu["watts"]}
        told += [f"up to {value:g} {unit}" for unit, value in highest.items() if value is not None]
        told.append(f"busy in {gpu['busy_samples']} of {gpu['samples']} samples")
        lines.append(f"GPU {gpu['index']} meanwhile: {', '.join(told)}")
    if state.get("gpu_processes"):
        listed = ", ".join(f"{each['name']} ({each['pid']})" for each in state["gpu_processes"])
        lines.append(f"Other processes on a GPU when it began: {listed}")
    return lines


def machine_blocks(report: Report) -> list[Block]:
    """What it was measured on, and what went on there meanwhile."""
    software = report["device"]["software"]
    packages = ", ".join(f"{name} {version}" for name, version in software["packages"].items())
    items = [device_summary(report["device"]), f"{software['system']}, Python {software['python']}, {packages}"]
    benchmark = report["benchmark"]
    for when, test in zip(("before", "after"), benchmark.get("self_test", []), strict=False):
        verdict = "passed" if test["passed"] else "FAILED"
        items.append(
            f"Self-test of the stopwatch {when} the benchmark {verdict}: {test['expected_ms']:g} ms measured as "
            f"{test['measured_ms']:.4f} ms ({100 * test['deviation']:+.2f} %, allowed {100 * test['tolerance']:g} %)"
        )
    state = benchmark.get("machine")
    if state:
        looks = [state["before"], state["after"]]
        shown = {
            "load": [look["load_1m"] for look in looks],
            "clock, MHz": [look["cpu_mhz"] for look in looks],
            "temperature, °C": [look["cpu_celsius"] for look in looks],
            "governor": [look["governor"] for look in looks],
        }
        told = [f"{name} {first} to {last}" for name, (first, last) in shown.items() if first is not None]
        hidden = [name.partition(",")[0] for name, (first, _) in shown.items() if first is None]
        told += [f"not readable here: {', '.join(hidden)}"] if hidden else []
        told += [f"{state['preemptions']} preemptions"] if state.get("preemptions") is not None else []
        told += [f"{state['steal_seconds']:g} s stolen by the hypervisor"] if state.get("steal_seconds") else []
        items.append("During the benchmark: " + "; ".join(told))
        items += _gpus(state)
    return [Bullets([prose(item) for item in items])]
