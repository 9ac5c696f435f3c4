"""What a check is given, and what it answers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from export.checks.examination.config import VerifyConfig
from export.checks.examination.deviation import BatchDeviation, Float32, UInt8, measure_deviation
from export.checks.examination.images import Batch, ShapeRange, image_batches
from export.checks.examination.reference import Reference
from export.graph.deploy import LOGITS_NAME
from export.graph.inner_logits import expose_logits, expose_tensors
from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.evaluation.evaluation import Evaluation, evaluate
from serving.contract.errors import UserError
from serving.contract.files import write_atomically
from serving.contract.manifest import Manifest, read_sidecar
from serving.engines.predictor import Predictor
from serving.engines.runtimes import RUNTIMES
from serving.engines.runtimes.runtime import Array, Runtime

Status = Literal["pass", "fail", "skipped", "inconclusive"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: of the check, as in the registry; who runs it fills that in.
        status: `skipped` when something it needs is not there, `inconclusive` when it could not tell.
        measured: the number that was judged, or None.
        threshold: the largest number that passes, or None.
        unit: of both numbers.
        detail: in words; for anything but a pass, why.
    """

    name: str = field(default="", kw_only=True)
    status: Status
    measured: float | None = None
    threshold: float | None = None
    unit: str = ""
    detail: str = ""

    @classmethod
    def decided(
        cls, passed: bool, measured: float | None, threshold: float | None, unit: str, detail: str
    ) -> CheckResult:
        """A check that could tell: `pass` or `fail`. A number that is not finite is not kept: JSON has none."""
        if measured is not None and not math.isfinite(measured):
            measured = None
        return cls("pass" if passed else "fail", measured, threshold, unit, detail)


class SkippedError(Exception):
    """Raised inside a check that cannot run here; the message says what is missing."""


class Check(Protocol):
    """One check. It raises UserError or SkippedError where it cannot go on; the runner turns both into results."""

    def __call__(self, context: CheckContext) -> CheckResult:
        """Run the check."""


class CheckContext:
    """One engine file under examination, beside the network it was made from. Use as a context manager.

    What several checks need is computed once, when first asked for. The file's hash is judged by one check alone: the
    others open the file whatever its hash.

    Args:
        engine_path: the shipped file.
        runtime: the runtime it ships with.
        options: of the runtime.
        reference: the network in PyTorch, or None when it is not at hand.
        split: labelled images, or None.
        config: what is compared, and how close is equal.
        max_miou_drop_points: precision -> largest allowed drop of mIoU.
        boundary_ratio: width of the boundary bands as a share of an image's diagonal.
    """

    def __init__(
        self,
        engine_path: Path,
        *,
        runtime: str,
        options: Mapping[str, object],
        reference: Reference | None,
        split: PreparedSplit | None,
        config: VerifyConfig,
        max_miou_drop_points: Mapping[str, float],
        boundary_ratio: float = 0.02,
    ) -> None:
        self.engine_path = engine_path
        self.runtime = runtime
        self.options = options
        self.config = config
        self.max_miou_drop_points = max_miou_drop_points
        self.boundary_ratio = boundary_ratio
        self._reference = reference
        self._split = split
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resources.close()

    @property
    def reference(self) -> Reference:
        """The network in PyTorch. Raises SkippedError without one."""
        if self._reference is None:
            raise SkippedError("no stripped segmentor to compare with: name one with --reference")
        return self._reference

    @property
    def split(self) -> PreparedSplit:
        """Labelled images. Raises SkippedError without them."""
        if self._split is None:
            raise SkippedError("no prepared dataset: name one with --data")
        return self._split

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest beside the engine. Raises UserError when it is missing or invalid."""
        return read_sidecar(self.engine_path)

    @cached_property
    def model(self) -> ModelProto:
        """The ONNX graph. Raises SkippedError for another kind of engine, UserError for what is no ONNX file."""
        if self.manifest.kind != "onnx":
            raise SkippedError(f"an engine of kind {self.manifest.kind} shows no graph")
        try:
            return onnx.load(self.engine_path, load_external_data=False)
        except (DecodeError, OSError) as error:
            raise UserError(f"{self.engine_path}: not a readable ONNX file: {error}") from error

    @cached_property
    def engine(self) -> Runtime:
        """The shipped file in its shipped runtime. Raises UserError when that cannot open it."""
        return self._open(self.engine_path)

    @cached_property
    def shapes(self) -> ShapeRange:
        """The shapes that synthetic images may have: those that the engine takes, up to the configured side."""
        return ShapeRange.of(self.engine, self.manifest.input.stride, self.config.max_side)

    @cached_property
    def exposed_engine(self) -> Runtime:
        """A copy of the shipped graph whose inner logits are an output as well, in the same runtime and options.

        Raises:
            SkippedError: this kind of engine shows no graph.
            UserError: the graph has no tensor of that name, or the runtime cannot open the copy.
        """
        folder = Path(self._resources.enter_context(tempfile.TemporaryDirectory(prefix="contrail-check-")))
        path = folder / self.engine_path.name
        write_atomically(path, expose_logits(self.model).SerializeToString())
        return self._open(path)

    def _open(self, path: Path) -> Runtime:
        """The file in the shipped runtime, whatever its hash is: that is for one check alone to say."""
        opened = RUNTIMES.resolve(self.runtime).open(path, self.manifest, self.options, check_hash=False)
        return self._resources.enter_context(opened)

    @cached_property
    def precision(self) -> str:
        """Asked for: what the runtime was told to compute in; of a quantised file, the manifest's."""
        told = None if "quantisation" in self.manifest.details else self.engine.told_precision()
        return told or self.manifest.precision

    @cached_property
    def max_logit_error(self) -> float:
        """Largest allowed logit error, relative to the largest logit, at this precision."""
        return limit(self.config.max_logit_error, self.precision, "verify.max_logit_error")

    @property
    def shows_logits(self) -> bool:
        """Whether the logits of the shipped graph can be seen."""
        return self.manifest.kind == "onnx"

    def masks(self, images: UInt8) -> UInt8:
        """Masks `[B,h,w]` uint8 of images `[B,h,w,3]` uint8, by the shipped file.

        Raises:
            UserError: the engine does not take these images or does not answer with masks of them.
        """
        mask = self.engine.infer(images)[self.manifest.mask_output.name]
        if mask.dtype != "uint8" or mask.shape != images.shape[:3]:
            raise UserError(
                f"images of shape {list(images.shape)} gave a mask of {mask.dtype} {list(mask.shape)}; "
                f"expected uint8 {list(images.shape[:3])}"
            )
        return mask

    def logits(self, images: UInt8) -> tuple[UInt8, Float32]:
        """Masks `[B,h,w]` and logits `[B,C,h,w]` float32 of images, both by the exposed copy."""
        outputs = self.exposed_engine.infer(images)
        return outputs[self.manifest.mask_output.name], outputs[LOGITS_NAME].astype("float32")

    def tensors(self, names: Iterable[str], images: UInt8) -> dict[str, Array]:
        """Inner tensors of the shipped graph in its shipped runtime, by a copy that is open for this call only."""
        with tempfile.TemporaryDirectory(prefix="contrail-check-") as folder:
            path = Path(folder, self.engine_path.name)
            write_atomically(path, expose_tensors(self.model, names).SerializeToString())
            runtime = RUNTIMES.resolve(self.runtime)
            with runtime.open(path, self.manifest, self.options, check_hash=False) as opened:
                return opened.infer(images)

    def deviation(self, batch: Batch) -> BatchDeviation:
        """The shipped file beside PyTorch on one batch: its masks, and the copy's logits where they can be seen."""
        expected = self.reference.logits(batch.images)
        masks = self.masks(batch.images)
        found = self.logits(batch.images)[1] if self.shows_logits else None
        return measure_deviation(batch.name, expected, masks, found, tolerance=self.max_logit_error)

    def allowed_error(self, deviation: BatchDeviation, batch: Batch, factor: float) -> tuple[float, str]:
        """The logit error that an engine may show on a batch, relative to the largest logit, and why in words.

        The limit of params.yaml; where that is exceeded, `factor` times what PyTorch itself loses by rounding in the
        engine's precision on the same images, if that is more. It is measured only then.
        """
        tolerance = self.max_logit_error
        if deviation.error is None or deviation.error <= tolerance:
            return tolerance, ""
        rounding = self.reference.rounding_error(batch.images, self.precision)
        note = f"; PyTorch's own rounding in {self.precision} is off by {rounding:.2e} there"
        # A network that overflows in this precision in PyTorch too excuses nothing.
        return max(tolerance, factor * rounding) if math.isfinite(rounding) else tolerance, note

    @cached_property
    def images(self) -> tuple[Batch, ...]:
        """The real images that are compared pixel by pixel."""
        spec = self.manifest.input
        return tuple(image_batches(self.split, self.config.images, stride=spec.stride, resize=spec.resize))

    @cached_property
    def on_images(self) -> tuple[BatchDeviation, ...]:
        """The shipped file beside PyTorch on real images."""
        return tuple(self.deviation(batch) for batch in self.images)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The shipped file through serving's own predictor, on the whole split, at the labels' resolution."""
        with Predictor(
            self.engine_path,
            runtime=self.runtime,
            options=self.options,
            manifest=self.manifest,
            check=False,
        ) as predictor:
            return evaluate(
                predictor.predict,
                self.split,
                self.manifest.num_classes,
                self.manifest.ignore_index,
                boundary_ratio=self.boundary_ratio,
                protocol="as deployed: single scale 1, no flip",
            )


def limit(limits: Mapping[str, float], precision: str, key: str) -> float:
    """The limit for a precision. Raises UserError when params.yaml names none."""
    if precision not in limits:
        raise UserError(f"{key}: no limit for precision {precision!r}; expected one beside {', '.join(limits)}")
    return limits[precision]
