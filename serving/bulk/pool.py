"""Workers on Ray Data: this machine's processors, or those of a cluster."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from serving.bulk.work import Task, Worker
from serving.contract.errors import EngineError, UserError
from serving.contract.parallel import available_cpus

# Ray moves names and reasons only; images are read and written by the workers.
_OBJECT_STORE_BYTES = 128 << 20
_ANSWER_S = 10.0
_TRIES = 3  # of a batch whose worker dies


@contextmanager
def cluster(address: str | None, *, actors: int | None) -> Iterator[None]:
    """Ray, running while the block does.

    Args:
        address: of a cluster's head; None: on this machine, and ended with the block.
        actors: that have to find room on this machine.

    Raises:
        UserError: no such cluster, or Ray does not start here.
    """
    # Ray reports its use to its makers, and draws what it does, unless it is told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray
    import ray.data

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        settings |= {"num_cpus": max(available_cpus(), actors or 1), "include_dashboard": False}
        settings["object_store_memory"] = _OBJECT_STORE_BYTES
    else:
        _require_listener(address)
    try:
        ray.init(address=address or "local", **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        what = f"--address {address}" if address is not None else "Ray did not start on this machine"
        raise UserError(f"{what}: {' '.join(str(error).split())[:300]}") from error
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield
    finally:
        ray.shutdown()


def segmented(
    versions: Mapping[str, str], task: Task, *, actors: int | None, batch: int, gpu: bool
) -> Iterator[dict[str, Any]]:
    """What became of each image, as of `Outcome`. A worker that dies is replaced, and its batch run again.

    Where a batch fails as often as it is tried, its images come in no outcome.

    Args:
        versions: of the images to segment, as of `Folder.images`.
        task: what the workers are told.
        actors: workers at once; None: one for each CPU or GPU.
        batch: images that are handed to one at once.
        gpu: whether each holds a GPU.

    Raises:
        EngineError: no worker could open the engine, or Ray gave up.
    """
    import ray
    import ray.data

    count = actors or max(int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)), 1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # one image that kills its workers does not end the run
    # As many pieces as there are batches: what a worker that dies had in hand is all that is done again.
    blocks = max(-(-len(versions) // batch), 1)
    # What waits for a worker that dies has its tries counted as well: images by themselves wait for none.
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=min(count, blocks), max_tasks_in_flight_per_actor=1 if batch == 1 else None
    )
    rows = [{"name": name, "version": version} for name, version in versions.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no named parameter limits the tries in the versions that the extra allows
        dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Worker,
            fn_constructor_args=(task,),
            batch_size=batch,
            compute=pool,
            num_cpus=0 if gpu else 1,
            num_gpus=1 if gpu else 0,
            max_task_retries=_TRIES - 1,
        )
    try:
        yield from dataset.iter_rows()
    except ray.exceptions.RayError as error:
        raise EngineError(f"Ray gave up: {_reason(error)}") from error


def _require_listener(address: str) -> None:
    """Raise UserError where nothing answers at HOST:PORT: Ray itself would go on trying for many minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # `auto` and the like: Ray says itself what is wrong
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: no answer ({error}); expected HOST:PORT of a Ray cluster's head, which "
            "`ray start --head` prints"
        ) from error


def _reason(error: BaseException) -> str:
    """The last line of what a worker said, which is what went wrong; the lines before are where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
