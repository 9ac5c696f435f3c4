"""Starts the ranks of a training on this machine, and all of them again, from the last state, where one dies."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from pipeline.training.distributed.rank import AGENT, INTERRUPTED, LOST, REFUSED

RESTARTS = 3
_STOPPED = 128 + signal.SIGTERM
_FINAL = (REFUSED, _STOPPED, INTERRUPTED)  # a rank that ends with one of these would do so again
# Those that torch's agent handles.
_HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]


def run_ranks(module: str, arguments: Sequence[str], processes: int) -> int:
    """Run `python -m module arguments` as `processes` ranks, until all of them are done.

    Where one dies, all start again, at most `RESTARTS` times. SIGTERM goes on to them, so that they keep their state.

    Returns:
        The status for this process: 0, that with which a rank was refused (2) or stopped (143, 130), else 1.
    """
    with tempfile.TemporaryDirectory(prefix="contrail-ranks-") as folder, _as_before():
        handler = get_rendezvous_handler(
            RendezvousParameters("c10d", "localhost:0", uuid.uuid4().hex, 1, 1, local_addr="localhost")
        )
        spec = WorkerSpec(
            role="train",
            local_world_size=processes,
            entrypoint=sys.executable,
            args=("-m", module, *arguments),
            rdzv_handler=handler,
            max_restarts=RESTARTS,
            local_addr="localhost",
        )
        try:
            result = _Agent(spec, DefaultLogsSpecs(log_dir=folder)).run()
        except SignalException as error:
            return 128 + error.sigval
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            handler.shutdown()
    statuses = {failure.exitcode for failure in result.failures.values()}
    return next((status for status in _FINAL if status in statuses), 1) if result.is_failed() else 0


class _Agent(LocalElasticAgent):
    """torch's agent, except that ranks which ended in order are not started again."""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if result.state is not WorkerState.FAILED:
            return result
        failed = sorted(result.failures.items(), key=lambda item: (item[1].exitcode == LOST, item[1].timestamp))
        if any(failure.exitcode in _FINAL for _, failure in failed):
            self._remaining_restarts = 0
            return result
        rank, failure = failed[0]
        left = self._remaining_restarts
        next_step = (
            f"all start again from the last checkpoint (restart {RESTARTS - left + 1} of {RESTARTS})"
            if left
            else "there is no restart left; the same command goes on from the last checkpoint"
        )
        sys.stderr.write(f"rank {rank} ended with {_named(failure.exitcode)}: {next_step}\n")
        sys.stderr.flush()
        return result


def _named(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


@contextmanager
def _as_before() -> Iterator[None]:
    """Within the block torch says errors alone, in ranks too; afterwards signals, environment and log are as before."""
    handlers = {number: signal.getsignal(number) for number in _HANDLED}
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    environment = os.environ.copy()
    os.environ[AGENT] = str(os.getpid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # not that all parameters were used (`ParallelLoss`)
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
