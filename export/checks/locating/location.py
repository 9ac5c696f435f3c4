"""The first tensor of an engine that leaves its tolerance, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.artifacts.shared.single_precision import named_model
from export.checks.examination.context import CheckContext, CheckResult, SkippedError
from export.checks.examination.deviation import BatchDeviation
from export.checks.examination.images import Batch, padded_scenes
from export.checks.examination.synthetic import ROUNDING_FACTOR
from export.checks.locating.matching import TensorPair, match
from export.checks.locating.measuring import Measure, computed, relative_error
from export.checks.locating.search import first_diverging
from export.checks.running import extremes, logits, shapes
from export.graph.deploy import CONFIDENCE_NAME, LOGITS_NAME
from serving.contract.errors import UserError
from serving.contract.limits import FP32

# Checks that compare what an engine computes: where none of these fails there is nothing to look for.
_ON_IMAGES = frozenset({"logits", "masks", "agreement", "accuracy", "exposure"})
_SYNTHETIC: Mapping[str, Callable[[CheckContext], list[Batch]]] = {
    "extremes": extremes.batches,
    "finite": extremes.batches,
    "shapes": shapes.batches,
}
_VALUES = _ON_IMAGES | frozenset(_SYNTHETIC) | {"batch"}


@dataclass(frozen=True)
class Located:
    """Where an engine goes wrong first.

    Attributes:
        tensor: its name in the shipped graph.
        layer: what makes it: path of the module in the segmentor's `state_dict`, or what the deployed graph does there.
        error: largest difference relative to the network's largest value in that tensor; None where it is not finite.
            For `argmax`, the share of the pixels whose class is not that of the largest logit.
    """

    tensor: str
    layer: str
    error: float | None


@dataclass(frozen=True)
class Location:
    """What was found.

    Attributes:
        located: the first diverging tensor, or None.
        reason: why there is none, or None.
        batch: the images on which it diverges; None where it is none or only the masks do.
    """

    located: Located | None
    reason: str | None = None
    batch: Batch | None = None

    def in_words(self) -> str:
        """One sentence for the terminal and the gate."""
        if self.located is None:
            return f"not located: {self.reason}"
        error = "values that are not finite" if self.located.error is None else f"an error of {self.located.error:.2e}"
        return f"first wrong at {self.located.layer} (tensor {self.located.tensor!r}), with {error}"


def locate(context: CheckContext, results: Sequence[CheckResult]) -> Location:
    """The first tensor of the shipped graph, in its shipped runtime, that leaves its tolerance.

    The reference is the stripped segmentor exported anew in single precision. A tensor's tolerance is the logits': of
    an INT8 file that computes rightly in single precision it is at most twice what its own rounding costs that tensor.

    Args:
        context: the engine.
        results: of its checks.
    """
    failing = [result.name for result in results if result.status == "fail"]
    if not _VALUES.intersection(failing):
        found = f"only {', '.join(failing)} failed" if failing else "no check failed"
        return Location(None, f"{found}: no values of a tensor were found wrong")
    try:
        return _locate(context, failing)
    except (SkippedError, UserError) as error:
        return Location(None, str(error))
    except Exception as error:  # noqa: BLE001 - as for checks: a damaged file makes any library raise anything
        return Location(None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _locate(context: CheckContext, failing: Sequence[str]) -> Location:
    if context.manifest.kind != "onnx":
        return Location(
            None,
            f"an engine of kind {context.manifest.kind} shows no inner tensors, and its inspector tells formats and no "
            "values: check the ONNX file that it was compiled from",
        )
    own, reference = context.manifest.provenance, context.reference.info.provenance
    if own.get("weights_sha256") != reference.get("weights_sha256"):
        return Location(None, "stale file: exported from other weights than the reference's, so every layer differs")
    for batch, factor in _suspects(context, failing):
        deviation = context.deviation(batch)
        allowed = context.allowed_error(deviation, batch, factor)[0]
        if deviation.error is not None and not deviation.error <= allowed:
            return _first(context, batch, allowed)
        if deviation.unexplained:
            return _after_logits(context, batch, deviation)
    return Location(None, f"no image was computed wrong in itself; what failed is {', '.join(failing)}")


def _suspects(context: CheckContext, failing: Sequence[str]) -> Iterator[tuple[Batch, float]]:
    """Batches that may show the damage, each with how many times PyTorch's rounding is allowed there."""
    if _ON_IMAGES.intersection(failing):
        try:
            real = context.images
        except SkippedError:
            real = ()
        yield from ((batch, logits.ROUNDING_FACTOR) for batch in real)
    named = [name for name in _SYNTHETIC if name in failing]
    for batches in dict.fromkeys(_SYNTHETIC[name] for name in named):
        yield from ((batch, ROUNDING_FACTOR) for batch in batches(context))
    if "batch" in failing:
        stride = context.manifest.input.stride
        _, height, width = context.shapes.clamp(3, 2 * stride, 3 * stride, stride)
        yield padded_scenes("3 scenes", 3, height, width, stride, context.config.seed), ROUNDING_FACTOR


def _first(context: CheckContext, batch: Batch, allowed: float) -> Location:
    """The first diverging tensor on a batch whose logits are wrong."""
    outputs = {spec.name for spec in context.manifest.outputs}
    network = context.reference.segmentor.cpu()
    reference = named_model(network, "mask+confidence" if CONFIDENCE_NAME in outputs else "mask")
    network.to(context.reference.device)
    anew = relative_error(
        computed(reference, [LOGITS_NAME], batch)[LOGITS_NAME], context.reference.logits(batch.images)
    )
    if anew > max(FP32.max_logit_error, ROUNDING_FACTOR * context.reference.rounding_error(batch.images, "fp32")):
        return Location(None, f"exported anew the network itself is {anew:.2e} off PyTorch on {batch.name}")
    pairs = match(reference, context.model)
    last = next((index for index, pair in enumerate(pairs) if pair.expected == LOGITS_NAME), None)
    if last is None:
        return Location(None, f"the graph has no tensor in the place of {LOGITS_NAME!r}")
    measure = Measure(context, reference, batch, allowed, as_rounded=False)
    if "quantisation" in context.manifest.details:
        (interpreted,) = computed(context.model, [pairs[last].found], batch).values()
        if relative_error(interpreted, context.reference.logits(batch.images)) <= allowed:
            measure = Measure(context, reference, batch, allowed, as_rounded=True)
    (error,) = measure([pairs[last]])
    if not error.diverges:
        return Location(None, f"with {pairs[last].found!r} as an output the logits of {batch.name} come out right")
    pair = pairs[first_diverging(pairs, last, measure)]
    (error,) = measure([pair])
    other_order = _other_order(measure.found([pair])[pair.found], measure.expected(pair), error.tolerance)
    if other_order is not None:
        return Location(None, f"{other_order}, and no layer computes anything wrong: from {pair.found!r} on")
    if (reason := _colours_swapped(context, pair, measure)) is not None:
        return Location(None, reason)
    located = Located(pair.found, pair.layer, error.error if math.isfinite(error.error) else None)
    return Location(located, batch=batch)


def _other_order(found: NDArray[np.generic], expected: NDArray[np.generic], tolerance: float) -> str | None:
    """Whether the right values are in other slots of the batch or in other channels; in words."""
    if found.shape != expected.shape or found.ndim != 4:
        return None
    slots = [
        next((j for j, right in enumerate(expected) if relative_error(values, right) <= tolerance), None)
        for values in found
    ]
    if len(slots) > 1 and sorted(slot for slot in slots if slot is not None) == list(range(len(slots))):
        return "every image of the batch is in another slot"
    for axis in (1, 3):
        if expected.shape[axis] == 3 and relative_error(np.flip(found, axis), expected) <= tolerance:
            return "the channels of the image are in another order"
    return None


def _colours_swapped(context: CheckContext, pair: TensorPair, measure: Measure) -> str | None:
    """Whether the first layer holds the network's weights for colours in another order; in words."""
    ours = measure.weights_of(pair.expected, shipped=False)
    theirs = measure.weights_of(pair.found, shipped=True)
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.ndim != 4 or ours.shape[1] != 3:
        return None
    same = relative_error(theirs, ours) <= FP32.max_logit_error
    if same or relative_error(theirs[:, ::-1], ours) > max(FP32.max_logit_error, context.max_logit_error):
        return None
    return f"the channels of the image are in another order for {pair.layer}, whose weights are the network's otherwise"


def _after_logits(context: CheckContext, batch: Batch, deviation: BatchDeviation) -> Location:
    """Right logits and a mask that does not come from them."""
    masks, found = context.logits(batch.images)
    wrong = float((masks != found.argmax(axis=1)).mean())
    if not wrong:
        return Location(None, "with the logits as an output the masks come out right: nothing can be seen of the cause")
    node = next((node for node in context.model.graph.node if LOGITS_NAME in node.input), None)
    name = node.output[0] if node is not None else context.manifest.mask_output.name
    return Location(Located(name, "argmax", wrong))
