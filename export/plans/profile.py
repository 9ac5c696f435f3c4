"""Which input shapes a plan is built for: those that params.yaml names, and for the rest those of the dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from export.targets.plan_build import PlanBuild
from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec
from serving.engines.runtimes.tensorrt.plan import Profile

Shape = tuple[int, int, int]

# A context reserves the memory of its profile's largest input: as many images at once as the benchmark measures, and of
# large images fewer, so that no batch is of more pixels than eight of Cityscapes' 1024 x 2048.
MAX_BATCH = 8
MIN_MAX_BATCH = 2  # one batch above 1 is always among what is verified
MAX_PIXELS = MAX_BATCH * 1024 * 2048


def plan_profile(build: PlanBuild, spec: InputSpec, sizes: Callable[[], Collection[tuple[int, int]]]) -> Profile:
    """The optimisation profile of a plan.

    Where params.yaml names no shape: the smallest is one square of the network's stride, for tiles, cut-outs and the
    checks; the best is one image of the size that most images have; the largest holds every image of the dataset.

    Args:
        build: `min`, `opt` and `max` as far as params.yaml names them.
        spec: the network's input, `[B,H,W,3]`; images are padded to multiples of its stride.
        sizes: gives height and width of the dataset's images, in pixels; called only where a shape is not named.

    Raises:
        UserError: a named shape is off the stride, or does not fit the others.
    """
    named = {key: shape for key in ("min", "opt", "max") if (shape := getattr(build, key)) is not None}
    unfit = [key for key, (_, height, width) in named.items() if height % spec.stride or width % spec.stride]
    if unfit:
        shape = list(named[unfit[0]])
        raise UserError(f"build.{unfit[0]}: expected height and width in multiples of {spec.stride}, got {shape}")
    least, best, most = (named[key] for key in named) if len(named) == 3 else _fitted(named, spec, sizes())
    return Profile((*least, 3), (*best, 3), (*most, 3))


def _fitted(named: dict[str, Shape], spec: InputSpec, sizes: Collection[tuple[int, int]]) -> tuple[Shape, Shape, Shape]:
    if not sizes:
        raise UserError("build: the dataset has no image to fit the plan's shapes to; name min, opt and max")
    padded = Counter(
        (height + -height % spec.stride, width + -width % spec.stride)
        for height, width in (spec.resize or size for size in sizes)
    )
    height, width = (max(sides) for sides in zip(*padded, strict=True))
    batch = min(max(MAX_PIXELS // (height * width), MIN_MAX_BATCH), MAX_BATCH)
    common = max(padded, key=lambda size: (padded[size], size[0] * size[1]))
    least = named.get("min", (1, spec.stride, spec.stride))
    best, most = named.get("opt", (1, *common)), named.get("max", (batch, height, width))
    # A shape of the dataset gives way to one that is named.
    if "max" not in named:
        most = _each(max, _each(max, most, least), named.get("opt", least))
    if "opt" not in named:
        best = _each(min, _each(max, best, least), most)
    if "min" not in named:
        least = _each(min, least, best)
    return least, best, most


def _each(choose: Callable[[int, int], int], first: Shape, second: Shape) -> Shape:
    return choose(first[0], second[0]), choose(first[1], second[1]), choose(first[2], second[2])
