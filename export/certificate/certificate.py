"""The zero-cost certificate: what a training method costs at inference, and what it brings, beside the baseline.

Everything here is pure: graphs, session pairs and confusion matrices in, the certificate out.

`verdict` of a method is that of structure and latency together. Structure: both graphs have the same canonical form and
the same counted costs. Latency: two engines of equal structure must take equally long, which is shown by an equivalence
test against a margin, and only where an A/A control, the baseline against itself measured in the same run in the same
way, passes the same test: a machine too restless to find the baseline equal to itself can prove nothing.
Accuracy is reported beside; the gate has its own limit for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from export.certificate.page import COUNTS
from export.graph.costs import Costs, costs
from export.graph.structure import first_difference, unused_initializers
from export.latency.paired_latency import PairSamples, median_ratio
from pipeline.evaluation.accuracy import PairedAccuracy, accuracy_section
from pipeline.evaluation.intervals import Verdict, confidence_per_look, equivalence

SCHEMA = 1
MIN_PAIRS = 8


@dataclass(frozen=True)
class GraphPair:
    """The graphs of one seed.

    Attributes:
        seed: of both trainings.
        baseline: the baseline's graph.
        other: the method's graph.
        input_shape: at which the costs are counted, such as `(1, 384, 480, 3)`.
    """

    seed: int
    baseline: ModelProto
    other: ModelProto
    input_shape: tuple[int, ...]


@dataclass(frozen=True)
class MethodInputs:
    """What is known of one method beside the baseline. Where something is missing the reason says why.

    Attributes:
        graphs: per seed.
        pairs: session pairs against the baseline.
        accuracy: evaluations of both, on the same images and seeds.
        missing: part (`structure`, `latency`, `accuracy`) -> reason.
    """

    graphs: Sequence[GraphPair] = ()
    pairs: Sequence[PairSamples] = ()
    accuracy: PairedAccuracy | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class LatencyRule:
    """How latencies are judged.

    Attributes:
        margin: the ratio may lie from `1 - margin` to `1 + margin`.
        looks: how often the measurement was allowed to stop and look; each interval's confidence accounts for it.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    margin: float
    looks: int = 1
    resamples: int = 10_000
    seed: int = 0

    @property
    def confidence(self) -> float:
        """Of one interval, so that those of all looks hold together with 95 %."""
        return confidence_per_look(self.looks)


def certify(
    methods: Mapping[str, MethodInputs],
    control: Sequence[PairSamples],
    rule: LatencyRule,
    *,
    baseline: str,
    target: str,
    profile: str,
) -> dict[str, Any]:
    """The certificate of all methods.

    Args:
        methods: name -> what is known of it.
        control: session pairs of the baseline against itself.
        rule: how latencies are judged.
        baseline: the baseline's name.
        target: the target whose engines were compared.
        profile: `quick` or `release`.

    Returns:
        `methods.NAME.{structure, latency, accuracy, verdict}`, and what all of them share.
    """
    control_section = ratio_section(control, rule)
    return {
        "schema": SCHEMA,
        "profile": profile,
        "baseline": baseline,
        "target": target,
        "margin": rule.margin,
        "confidence": 0.95,
        "confidence_per_look": rule.confidence,
        "looks": rule.looks,
        "control": control_section,
        "methods": {name: certify_method(inputs, control_section, rule) for name, inputs in methods.items()},
    }


def certify_method(inputs: MethodInputs, control: Mapping[str, Any], rule: LatencyRule) -> dict[str, Any]:
    """One method's entry: `structure`, `latency`, `accuracy`, `verdict` and the `reasons` of a verdict but `pass`."""
    structure = structure_section(inputs.graphs, inputs.missing.get("structure"))
    latency = latency_section(inputs.pairs, control, rule, inputs.missing.get("latency"))
    verdicts = {structure["verdict"], latency["verdict"]}
    verdict: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    return {
        "structure": structure,
        "latency": latency,
        "accuracy": accuracy_section(inputs.accuracy, resamples=rule.resamples, seed=rule.seed)
        if inputs.accuracy is not None
        else {"reason": inputs.missing.get("accuracy", "no evaluation")},
        "verdict": verdict,
        "reasons": [f"structure: {reason}" for reason in structure["reasons"]]
        + [f"latency: {reason}" for reason in latency["reasons"]],
    }


def structure_section(graphs: Sequence[GraphPair], missing: str | None = None) -> dict[str, Any]:
    """Compare the graphs of all seeds: canonical forms, counted costs, and initializers that nothing uses.

    Returns:
        `identical`, `first_difference` in words, `nodes`, `params`, `flops` (multiply-adds), `weight_bytes` and
        `peak_activation_bytes` of the method's graph, the baseline's under `baseline`, `verdict` and `reasons`.
    """
    if not graphs:
        reason = missing or "no graph to compare"
        empty = _costs_section(None)
        return {"identical": False, "first_difference": None, **empty, "baseline": empty} | {
            "verdict": "inconclusive",
            "reasons": [reason],
        }
    reasons: list[str] = []
    differences: list[str] = []
    for pair in graphs:
        where = f" (seed {pair.seed})" if len(graphs) > 1 else ""
        difference = first_difference(pair.baseline, pair.other)
        if difference is not None:
            differences.append(f"{difference}{where}")
        ours, theirs = costs(pair.other, pair.input_shape), costs(pair.baseline, pair.input_shape)
        for name, value in _costs_section(ours).items():
            expected = _costs_section(theirs)[name]
            if value != expected:
                reasons.append(f"{COUNTS[name]}: {value} against the baseline's {expected}{where}")
        unused = unused_initializers(pair.other)
        if unused:
            reasons.append(f"{len(unused)} initializers that no output needs, the first is {unused[0]!r}{where}")
    if differences:
        reasons.insert(0, f"not the same graph: {differences[0]}")
    first = graphs[0]
    return {
        "identical": not differences,
        "first_difference": differences[0] if differences else None,
        **_costs_section(costs(first.other, first.input_shape)),
        "baseline": _costs_section(costs(first.baseline, first.input_shape)),
        "input_shape": list(first.input_shape),
        "seeds": [pair.seed for pair in graphs],
        "verdict": "fail" if reasons else "pass",
        "reasons": reasons,
    }


def ratio_section(pairs: Sequence[PairSamples], rule: LatencyRule) -> dict[str, Any]:
    """Ratio, interval and verdict of one comparison: `ratio`, `ci95`, `pairs`, `blocks`, `verdict`."""
    if not pairs:
        return {"ratio": None, "ci95": None, "pairs": 0, "blocks": 0, "verdict": "inconclusive"}
    ratio = median_ratio(
        pairs, resamples=rule.resamples, generator=np.random.default_rng(rule.seed), confidence=rule.confidence
    )
    verdict = equivalence(ratio, rule.margin) if len(pairs) >= MIN_PAIRS else "inconclusive"
    return {
        "ratio": ratio.value,
        "ci95": [ratio.low, ratio.high] if ratio.bounded else None,
        "pairs": len(pairs),
        "blocks": sum(len(pair.latencies_ns) for pair in pairs),
        "pair_ratios": [float(np.exp(np.median(pair.log_ratios))) for pair in pairs],
        "stable": all(pair.baseline_warm_up.stable and pair.other_warm_up.stable for pair in pairs),
        "verdict": verdict,
    }


def latency_section(
    pairs: Sequence[PairSamples], control: Mapping[str, Any], rule: LatencyRule, missing: str | None = None
) -> dict[str, Any]:
    """Judge one method's session pairs in the light of the control.

    Returns:
        `ratio`, `ci95`, `margin`, `control_ratio`, `control_verdict`, `verdict`, `reasons`, and how much was measured.
    """
    section = ratio_section(pairs, rule)
    verdict: Verdict = section["verdict"]
    reasons: list[str] = []
    allowed = f"{1 - rule.margin:.3f} to {1 + rule.margin:.3f}"
    if not pairs:
        reasons.append(missing or "nothing was measured")
    elif len(pairs) < MIN_PAIRS:
        reasons.append(f"{len(pairs)} session pairs are too few; expected at least {MIN_PAIRS}")
    elif verdict != "pass":
        low, high = section["ci95"]
        where = "lies outside" if verdict == "fail" else "reaches beyond"
        reasons.append(f"ratio {section['ratio']:.4f}, interval {low:.4f} to {high:.4f}, {where} {allowed}")
    if verdict == "pass" and control["verdict"] != "pass":
        verdict = "inconclusive"
        reasons.append("the control (the baseline against itself) did not pass, so that nothing does")
    return section | {
        "margin": rule.margin,
        "control_ratio": control["ratio"],
        "control_verdict": control["verdict"],
        "verdict": verdict,
        "reasons": reasons,
    }


def _costs_section(counted: Costs | None) -> dict[str, int | None]:
    if counted is None:
        return dict.fromkeys(("nodes", "params", "flops", "weight_bytes", "peak_activation_bytes"))
    return {
        "nodes": counted.nodes,
        "params": counted.parameters,
        "flops": counted.multiply_adds,
        "weight_bytes": counted.weight_bytes,
        "peak_activation_bytes": counted.peak_activation_bytes,
    }
