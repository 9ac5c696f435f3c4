"""From an image to its mask: geometry, runtime, geometry back."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import EngineError, UserError
from serving.contract.manifest import Manifest, read_sidecar
from serving.contract.parallel import available_cpus, in_order
from serving.contract.timings import LastTimings
from serving.engines.runtimes import RUNTIMES, default_runtime
from serving.engines.tensors import require_shapes, to_confidences, to_input, to_layers, to_masks
from serving.images.decoding import MAX_PIXELS
from serving.images.geometry import Placement, place, restore, tile, untile
from serving.images.image_io import read_image

UInt8 = NDArray[np.uint8]

_EXAMPLE_TILE = 512  # pixels a side
_LEAST_TILE = 32  # pixels a side: the least stride of the usual networks


@dataclass(frozen=True)
class Segmentation:
    """What an engine says of one image.

    Attributes:
        mask: `[H,W]` uint8 class indices.
        confidence: `[H,W]` uint8, 0..255, of the class in the mask; None where the engine gives none.
        layers: `[H,W,C-1]` uint8, 255 where a class after the background is, else 0; only where classes may overlap.
    """

    mask: UInt8
    confidence: UInt8 | None = None
    layers: UInt8 | None = None


@dataclass(frozen=True)
class StreamedImage:
    """One image of a stream.

    Attributes:
        path: of the file.
        image: `[H,W,3]` uint8 RGB; None where it could not be read.
        segmentation: what the engine says of it; None where it failed.
        error: why there is no segmentation; None where there is one.
    """

    path: Path
    image: UInt8 | None
    segmentation: Segmentation | None = None
    error: UserError | None = None


class Predictor:
    """An engine ready for images. Use as a context manager; several threads may share it.

    ONNX Runtime on the CPU and OpenVINO run the calls of several threads side by side; on a GPU they wait for each
    other. Only `close` needs that no other thread is inside.

    Args:
        engine_path: the engine file.
        runtime: name in `RUNTIMES`; None takes the usual one of the file's kind.
        options: of the runtime.
        manifest: what the engine is, for files from elsewhere; None reads `manifest.json` beside the file.
        check: whether the file must be the one its manifest was written for (by SHA-256, before it is deserialised);
            a manifest that is given and names no hash is taken as it is.
        tile: (height, width) of the windows that larger images are cut into, each at least 32 and the engine's stride;
            None runs every image whole.
        overlap: pixels that neighbouring windows share; at most half a window.

    Attributes:
        engine_path, manifest: of the engine.
        timings_ms: of the calling thread's last call, in milliseconds: `preprocess`, `engine`, `postprocess`.

    Raises:
        UserError: the engine or its manifest is missing, changed or corrupt, or the runtime cannot run it.

    Example:
        with Predictor(Path("artifacts/pixel_contrast-s0/onnx_fp32/model.onnx")) as predictor:
            mask = predictor.predict(read_image(Path("street.jpg")))
    """

    def __init__(
        self,
        engine_path: Path | str,
        *,
        runtime: str | None = None,
        options: Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        check: bool = True,
        tile: tuple[int, int] | None = None,
        overlap: int = 64,
    ) -> None:
        self.engine_path = engine_path = Path(engine_path)
        # A manifest that is given may name no hash: then there is nothing to compare a model from elsewhere with.
        check = check and (manifest is None or manifest.sha256 is not None)
        self.manifest = manifest = manifest or read_sidecar(engine_path)
        self._timings = LastTimings()
        self._closed = False
        self._tile, self._overlap = tile, overlap
        if tile is not None and manifest.input.resize is not None:
            raise UserError(f"tile: this engine resizes every image to {list(manifest.input.resize)}; leave tiles out")
        if tile is not None:
            _require_sensible(tile, overlap, manifest.input.stride)
        # The runtime compares the hash, right before it loads the file: once.
        self.runtime = RUNTIMES.resolve(runtime or default_runtime(manifest.kind)).open(
            engine_path, manifest, options or {}, check_hash=check
        )

    @classmethod
    def open(
        cls,
        engine_path: Path | str,
        *,
        runtime: str | None = None,
        options: Mapping[str, object] | None = None,
        manifest: Manifest | None = None,
        tile: tuple[int, int] | None = None,
        overlap: int = 64,
    ) -> Self:
        """Open an engine; the arguments are those of the class, and the file is always the one of its manifest."""
        return cls(engine_path, runtime=runtime, options=options, manifest=manifest, tile=tile, overlap=overlap)

    def stream(
        self, paths: Iterable[Path | str], *, workers: int | None = None, max_pixels: int = MAX_PIXELS
    ) -> Generator[StreamedImage, None, None]:
        """Read and segment images, several at once, as they are asked for: memory does not grow with their number.

        Args:
            paths: of image files; taken as they are needed.
            workers: images at once; None: one for each CPU, eight at most. With several, give the engine one thread
                each (`options={"threads": 1}`): calls that share nothing are faster than operators cut into pieces.
            max_pixels: larger images are refused.

        Yields:
            Every image in the order of `paths`, also those that could not be read or segmented, with the reason.
        """

        def work(path: Path | str) -> StreamedImage:
            path, image = Path(path), None
            try:
                image = read_image(path, max_pixels=max_pixels)
                return StreamedImage(path, image, self.segment([image])[0])
            except UserError as error:
                return StreamedImage(path, image, error=error)

        return in_order(work, paths, workers=workers or min(available_cpus(), 8))

    def untiled(self) -> Self:
        """This engine for images that run whole: what is open is shared, and closed with this predictor."""
        whole = copy.copy(self)
        whole._tile = None
        return whole

    @property
    def timings_ms(self) -> dict[str, float]:
        """See the class."""
        return self._timings.parts

    def predict(self, image: UInt8) -> UInt8:
        """The mask of one image.

        Args:
            image: `[H,W,3]` uint8 RGB.

        Returns:
            `[H,W]` uint8 class indices.

        Raises:
            UserError: not such an image.
            EngineError: the engine failed on it, or there is too little memory (a `UserError`, too).
        """
        return self.segment([image])[0].mask

    def predict_batch(self, images: Iterable[UInt8]) -> list[UInt8]:
        """The masks of several images; those of equal size run together.

        Args:
            images: `[H,W,3]` uint8 RGB each, of any sizes.

        Returns:
            `[H,W]` uint8 class indices each, in the same order.

        Raises:
            UserError: not such images.
            EngineError: the engine failed on them, or there is too little memory.
        """
        return [segmentation.mask for segmentation in self.segment(images)]

    def segment(self, images: Iterable[UInt8]) -> list[Segmentation]:
        """Mask and, where the engine gives them, confidence and layers of several images; see `predict_batch`."""
        if self._closed:
            raise UserError("this predictor is closed: open the engine anew")
        images = list(images)
        for image in images:
            _require_image(image)
        self._timings.parts = {"preprocess": 0.0, "engine": 0.0, "postprocess": 0.0}
        try:
            if self._tile is None:
                return self._segment_whole(images)
            return [self._segment_tiles(image, self._tile) for image in images]
        except MemoryError as error:
            largest = max(images, key=lambda image: image.size)
            raise EngineError(
                f"too little memory for an image of {largest.shape[0]}x{largest.shape[1]}{self._advice()}"
            ) from error

    def _advice(self) -> str:
        """How to bring large or odd images through an engine that does not take them."""
        if self.manifest.input.resize is not None:
            return ""
        sizes = self.runtime.size_range or ((1, 1), (_EXAMPLE_TILE, _EXAMPLE_TILE))
        if sizes[0] == sizes[1]:
            return (
                f'; it takes {sizes[0][0]}x{sizes[0][1]} pixels only: its manifest has to say "resize": {[*sizes[0]]}'
            )
        smaller = "smaller " if self._tile is not None else ""
        example = "x".join(str(min(max(_EXAMPLE_TILE, low), high)) for low, high in zip(*sizes, strict=True))
        return f"; {smaller}windows may go through it: --tile HxW (in Python, tile=(H, W)), as in --tile {example}"

    def _segment_tiles(self, image: UInt8, size: tuple[int, int]) -> Segmentation:
        """One image through overlapping windows, one at a time: memory is that of a window."""
        tiles = tile(*image.shape[:2], tile_height=size[0], tile_width=size[1], overlap=self._overlap)
        parts = [self._segment_whole([image[each.top : each.bottom, each.left : each.right]])[0] for each in tiles]
        confidences = [part.confidence for part in parts if part.confidence is not None]
        layers = [part.layers for part in parts if part.layers is not None]
        return Segmentation(
            untile([part.mask for part in parts], tiles),
            untile(confidences, tiles) if confidences else None,
            untile(layers, tiles) if layers else None,
        )

    def _segment_whole(self, images: Sequence[UInt8]) -> list[Segmentation]:
        with _Stopwatch(self.timings_ms, "preprocess"):
            spec = self.manifest.input
            placed = [place(image, stride=spec.stride, resize=spec.resize) for image in images]
            groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for index, (image, _) in enumerate(placed):
                groups[image.shape].append(index)
        results: dict[int, Segmentation] = {}
        _, most = self.runtime.batch_range
        for indices in groups.values():
            step = most or len(indices)
            for start in range(0, len(indices), step):
                chosen = indices[start : start + step]
                segmented = self._run([placed[index] for index in chosen])
                results.update(zip(chosen, segmented, strict=True))
        return [results[index] for index in range(len(images))]

    def _run(self, placed: Sequence[tuple[UInt8, Placement]]) -> list[Segmentation]:
        """One call of the engine on images of one size."""
        with _Stopwatch(self.timings_ms, "preprocess"):
            least, _ = self.runtime.batch_range
            stack = [image for image, _ in placed]
            stack += stack[-1:] * (least - len(stack))  # an engine made for a fixed batch gets it full
            images = stack[0][None] if len(stack) == 1 else np.stack(stack)
            batch = to_input(images, self.manifest.input)
        size = images.shape[1], images.shape[2]
        try:
            with _Stopwatch(self.timings_ms, "engine"):
                outputs = self.runtime.infer(batch)
            require_shapes(outputs, self.manifest, len(images), size)
        except UserError as error:
            raise EngineError(f"{error}{self._advice()}") from error
        with _Stopwatch(self.timings_ms, "postprocess"):
            masks = to_masks(outputs, self.manifest, size)
            confidences = to_confidences(outputs, self.manifest, size)
            layers = to_layers(outputs, self.manifest, size)
            return [
                Segmentation(
                    restore(masks[index], placement),
                    None if confidences is None else restore(confidences[index], placement),
                    None if layers is None else restore(layers[index], placement),
                )
                for index, (_, placement) in enumerate(placed)
            ]

    def close(self) -> None:
        """Free the engine; closing twice does nothing."""
        self._closed = True
        self.runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _require_image(image: object) -> None:
    if not isinstance(image, np.ndarray):
        kind = type(image).__name__
        raise UserError(f"image: expected uint8 [H,W,3], got {kind}; `read_image` reads a file into an array")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(f"image: expected uint8 [H,W,3], got {image.dtype} {list(image.shape)}")


def _require_sensible(tile: tuple[int, int], overlap: int, stride: int) -> None:
    """Raise UserError for windows that show a network next to nothing, or that compute most pixels many times."""
    least = max(_LEAST_TILE, stride)
    if min(tile) < least:
        reason = f"the engine's stride is {stride}" if stride == least else "smaller windows show a network nothing"
        raise UserError(f"tile: expected at least {least}x{least} ({reason}), got {tile[0]}x{tile[1]}")
    if not 0 <= overlap <= min(tile) // 2:
        raise UserError(f"overlap: expected in 0..{min(tile) // 2} (at most half a tile), got {overlap}")


class _Stopwatch:
    """Adds the time spent inside to one entry of `timings_ms`."""

    def __init__(self, timings_ms: dict[str, float], name: str) -> None:
        self._timings_ms, self._name = timings_ms, name

    def __enter__(self) -> None:
        self._start = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self._timings_ms[self._name] += (time.perf_counter_ns() - self._start) / 1e6
