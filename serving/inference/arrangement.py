"""How a run shares the machine's CPUs: how many images at once, and how many threads the engine has for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.contract.errors import UserError
from serving.contract.parallel import available_cpus
from serving.engines.runtimes.runtime import Runtime
from serving.inference.planning import Job
from serving.inference.supply import size_of

# Up to this many pixels, one image for each CPU; of larger ones fewer, or memory would grow with the number of CPUs.
_SMALL = 1 << 20
_ASKED = 8  # images whose sizes are looked at


@dataclass(frozen=True)
class Arrangement:
    """How to share.

    Attributes:
        workers: threads that carry images, each one (or a batch) at a time.
        options: of the runtime, so that as many calls at once share the CPUs.
    """

    workers: int
    options: Mapping[str, object]


def arrange(
    jobs: Sequence[Job],
    runtime: type[Runtime],
    options: Mapping[str, object],
    *,
    threads: int | None,
    tile: tuple[int, int] | None,
) -> Arrangement:
    """Decide for a run.

    One image alone is the engine's: it gets all CPUs. Of many small ones each CPU takes one, which costs no waiting
    between threads; of large ones at most two share the machine's CPUs.

    Args:
        jobs: the images; a video counts as many.
        runtime: of the engine.
        options: that were asked for; what the arrangement would set is left as it was asked for.
        threads: CPU threads in all; None: one for each CPU that this process may use.
        tile: size of the windows that images run in, where they do.
    """
    many = any(job.image.video for job in jobs)
    if len(jobs) <= 1 and not many:
        return Arrangement(1, options if threads is None else {"threads": threads, **options})
    total = threads or available_cpus()
    pixels = tile[0] * tile[1] if tile is not None else _largest(jobs)
    fit = max(min(2, total), total * _SMALL // max(pixels, _SMALL))
    workers = min(total, fit) if many else min(total, fit, len(jobs))
    shared = runtime.options_for(workers, total)
    if any(name in options for name in shared):
        shared = {}
    return Arrangement(workers, {**shared, **options})


def _largest(jobs: Sequence[Job]) -> int:
    """Pixels of the largest of a few images; 0 where none of them can be read."""
    largest = 0
    for job in jobs[:: max(len(jobs) // _ASKED, 1)][:_ASKED]:
        try:
            height, width = size_of(job)
        except UserError:
            continue
        largest = max(largest, height * width)
    return largest
