"""Run an engine on its golden images, where it is to serve, and say whether it computes what it computed in the lab.

The lab sees the engine's logits, a device only its masks. So the lab's error stands in for the device's: a pixel whose
class differs from PyTorch's is explained where PyTorch's margin is at most twice the largest logit error of the lab.
In reduced precision that error explains too much; there the lab engine's own masks are what is compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.engines.predictor import Predictor
from serving.golden.golden import Golden, LabRun, golden_folder, read_latencies

UInt8 = NDArray[np.uint8]

# Another processor rounds in another order: where the lab's runtime happens to be as exact as PyTorch, this much of the
# largest logit is allowed all the same: 64 units in the last place of single precision.
_FLOOR = 2.0**-18
_LARGEST_BATCH = 4
_LATENCY_RUNS = 5
# A runtime may keep other layers in float on another processor; fewer by more than this share is another engine.
_LAYER_SHARE = 0.1


@dataclass(frozen=True)
class InputResult:
    """One golden image.

    Attributes:
        name: of the image.
        height, width: in pixels.
        differing: pixels whose class is not the expected one.
        unexplained: of those, the pixels that no rounding explains (only in single precision).
    """

    name: str
    height: int
    width: int
    differing: int
    unexplained: int


@dataclass
class SelfTest:
    """What was found.

    Attributes:
        engine, sha256: the file.
        runtime: what really runs, as the runtime tells.
        precision: that it computes in.
        compared_with: `PyTorch`, or the lab engine of the same precision.
        inputs: one result per image.
        batch: number of slots that were run at once.
        disagreement: share of all pixels whose class is not the expected one; None where nothing could be run.
        allowed: the largest share that passes; None in single precision, where every pixel has to be explained.
        latency_ms: median of one golden image, the largest, here.
        lab_latency_ms: likewise in the lab; None where it was not kept.
        problems: why the verdict is not a pass.
    """

    engine: str
    sha256: str
    runtime: Mapping[str, object] = field(default_factory=dict)
    precision: str = ""
    compared_with: str = ""
    inputs: list[InputResult] = field(default_factory=list)
    batch: int = 0
    disagreement: float | None = None
    allowed: float | None = None
    latency_ms: float | None = None
    lab_latency_ms: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the engine computes here what it computed in the lab."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        values = dict(vars(self)) | {"inputs": [vars(each) for each in self.inputs]}
        return {"verdict": "pass" if self.passed else "fail", **values}


def self_test(predictor: Predictor, golden: Golden | None = None, *, folder: Path | None = None) -> SelfTest:
    """Run the golden images through an open engine.

    Args:
        predictor: its runtime and options are those that are tested; the images run whole.
        golden: None reads the folder.
        folder: that the golden files lie in; None: the one beside the engine.

    Returns:
        The result; whatever goes wrong with the engine is a problem in it.

    Raises:
        UserError: there are no golden files, or they cannot be read.
    """
    predictor = predictor.untiled()
    folder = folder or golden_folder(predictor.engine_path)
    golden = golden or Golden.load(folder)
    result = SelfTest(str(predictor.engine_path), predictor.manifest.sha256 or file_sha256(predictor.engine_path))
    if golden.engine_sha256 != result.sha256:
        result.problems.append(
            f"golden files of another engine: made with sha256 {golden.engine_sha256[:16]}..., this one has "
            f"{result.sha256[:16]}...: copy both from one export"
        )
        return result
    result.runtime = predictor.runtime.what_runs()
    result.precision = precision_of(predictor)
    run, result.compared_with = _lab_run(golden, predictor.runtime.name, result.precision)
    try:
        _check_layers(result, predictor, run)
        _compare(result, predictor, golden, run)
    except UserError as error:
        result.problems.append(f"the engine failed: {error}")
        return result
    _measure(result, predictor, golden)
    latencies = read_latencies(folder)
    result.lab_latency_ms = latencies.get(f"{predictor.runtime.name} {result.precision}")
    return result


def precision_of(predictor: Predictor) -> str:
    """What an engine computes in: of a quantised file the manifest's, else what the runtime was told."""
    own = predictor.manifest.precision
    return own if own == "int8" else predictor.runtime.told_precision() or own


def _lab_run(golden: Golden, runtime: str, precision: str) -> tuple[LabRun, str]:
    """The lab's run to compare with, and what its masks are called: the nearest that there is."""
    same = [run for run in golden.lab if run.precision == precision]
    here = [run for run in same if run.runtime == runtime]
    run = (here or same or list(golden.lab))[0]
    if precision == "fp32" and same and any(each.logit_error is not None for each in same):
        # Where this runtime was not in the lab, the error of the least exact one that was.
        known = [each for each in here or same if each.logit_error is not None] or same
        return max(known, key=lambda each: each.logit_error or 0.0), "PyTorch"
    return run, f"{run.runtime} {run.precision} in the lab"


def _check_layers(result: SelfTest, predictor: Predictor, run: LabRun) -> None:
    """Whether as many layers compute in the precision as in the lab, where both runtimes tell."""
    if not run.layers or run.runtime != predictor.runtime.name or run.precision != result.precision:
        return
    told = predictor.runtime.layer_precisions()
    if told is None:
        return
    here, there = (_share(layers, result.precision) for layers in (told[0], run.layers))
    if here < there - _LAYER_SHARE:
        listed = ", ".join(f"{count} {name}" for name, count in told[0].items())
        result.problems.append(
            f"computes {100 * here:.0f} % of its layers in {result.precision}, in the lab {100 * there:.0f} %: {listed}"
        )


def _share(layers: Mapping[str, int], precision: str) -> float:
    return layers.get(precision, 0) / max(sum(layers.values()), 1)


def _compare(result: SelfTest, predictor: Predictor, golden: Golden, run: LabRun) -> None:
    """Every image alone, then those of one size in the slots of a batch."""
    exact = result.compared_with == "PyTorch"
    result.allowed = None if exact else run.max_disagreement
    reach = 2 * max(run.logit_error or 0.0, _FLOOR * run.largest_logit)
    pixels = differing = 0
    for index, each in enumerate(golden.inputs):
        expected = each.mask if exact else run.masks[index]
        wrong = predictor.predict(each.image) != expected
        unexplained = wrong & (each.margin.astype(np.float32) > reach) if exact else np.zeros_like(wrong)
        counts = int(wrong.sum()), int(unexplained.sum())
        height, width = each.mask.shape
        result.inputs.append(InputResult(each.name, height, width, *counts))
        pixels, differing = pixels + wrong.size, differing + counts[0]
        if counts[1]:
            result.problems.append(
                f"{each.name}: {counts[1]} of {wrong.size} pixels differ from PyTorch's where no rounding explains it"
                f" ({_first(unexplained, each.margin)}; the lab's logits were off by at most {reach / 2:.2e})"
            )
    result.disagreement = differing / pixels
    if result.allowed is not None and result.disagreement > result.allowed:
        result.problems.append(
            f"{100 * result.disagreement:.3f} % of the pixels differ from {result.compared_with}; at most "
            f"{100 * result.allowed:.3f} % may"
        )
    _compare_slots(result, predictor, golden, run, exact, reach)


def _compare_slots(
    result: SelfTest, predictor: Predictor, golden: Golden, run: LabRun, exact: bool, reach: float
) -> None:
    """Several images at once, different ones in neighbouring slots: each must give what it gives alone."""
    least, most = predictor.runtime.batch_range
    slots = min(most or _LARGEST_BATCH, max(_LARGEST_BATCH, least))
    sizes = [each.mask.shape for each in golden.inputs]
    size = max(set(sizes), key=lambda size: (sizes.count(size), size))
    alike = [index for index, each in enumerate(sizes) if each == size]
    chosen = [alike[slot % len(alike)] for slot in range(slots)]
    # Turned by half a turn in every second round, so that no two slots hold the same image.
    images = [
        golden.inputs[index].image[::-1, ::-1].copy() if slot // len(alike) % 2 else golden.inputs[index].image
        for slot, index in enumerate(chosen)
    ]
    result.batch = slots
    alone = {}
    for slot, mask in enumerate(predictor.predict_batch(images)):
        turned = slot // len(alike) % 2
        key = chosen[slot], turned
        if key not in alone:
            alone[key] = predictor.predict(images[slot])
        wrong = mask != alone[key]
        if turned or not exact:
            bad = wrong.mean() > run.max_disagreement
        else:
            bad = bool((wrong & (golden.inputs[chosen[slot]].margin.astype(np.float32) > 2 * reach)).any())
        if bad:
            result.problems.append(
                f"slot {slot} of a batch of {slots}: {int(wrong.sum())} pixels differ from what the image gives alone"
            )


def _measure(result: SelfTest, predictor: Predictor, golden: Golden) -> None:
    image = max(golden.inputs, key=lambda each: each.mask.size).image
    times = []
    for _ in range(_LATENCY_RUNS):
        start = time.perf_counter_ns()
        predictor.predict(image)
        times.append((time.perf_counter_ns() - start) / 1e6)
    result.latency_ms = median(times)


def _first(unexplained: NDArray[np.bool_], margin: NDArray[np.float16]) -> str:
    row, column = np.argwhere(unexplained)[0].tolist()
    return f"the first at row {row}, column {column}, where PyTorch leads by {float(margin[row, column]):.2e}"


def lines(result: SelfTest) -> Sequence[str]:
    """What the command prints without `--json`."""
    runtime = ", ".join(f"{key} {value}" for key, value in result.runtime.items() if value is not None)
    shown = [f"{result.engine}: {'pass' if result.passed else 'FAIL'}"]
    if result.runtime:
        shown.append(f"  runs     {runtime}; computes in {result.precision}")
    for each in result.inputs:
        explained = "" if not each.differing else f", {each.differing - each.unexplained} of them explained"
        if result.allowed is not None:
            explained = ""
        shown.append(
            f"  {each.name:8} {each.height}x{each.width}: {each.differing} pixels differ from "
            f"{result.compared_with}{explained}"
        )
    if result.batch:
        shown.append(f"  batch    {result.batch} slots")
    if result.latency_ms is not None:
        lab = f" (lab {result.lab_latency_ms:.1f} ms)" if result.lab_latency_ms is not None else ""
        shown.append(f"  latency  {result.latency_ms:.1f} ms{lab}")
    return [*shown, *(f"  problem  {problem}" for problem in result.problems)]
