"""Work on many things at once, results in order, and no more of them in memory than are needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """Map `work` over `items` in threads.

    Args:
        work: called in a thread; what it raises is raised here, in its turn.
        items: taken as they are needed.
        workers: threads; 1 works in the calling thread.
        ahead: results that may wait for an earlier one, at most; None: two for each worker.

    Yields:
        The results in the order of the items.

    Example:
        >>> list(in_order(lambda number: number * number, range(5), workers=2))
        [0, 1, 4, 9, 16]
    """
    if workers == 1:
        yield from map(work, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # only now: it costs every cold start otherwise

    most = ahead or 2 * workers
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
