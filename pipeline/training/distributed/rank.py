"""One rank as a process: it joins the others, ends with them, and says why only where no other does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from serving.contract.errors import UserError, shown

REFUSED, INTERRUPTED = 2, 130
LOST = 75  # EX_TEMPFAIL: another rank is gone
AGENT = "CONTRAIL_AGENT"  # the process that started the ranks, where that is Contrail's
_PR_SET_PDEATHSIG = 1
_PATIENCE = timedelta(seconds=10)  # in which the first rank is refused too, where it is
_PAUSE = 0.05  # seconds


def is_rank() -> bool:
    """Whether this process was started as a rank: by Contrail itself or by torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def ranks_in_all() -> int:
    """How many ranks there are, on all machines."""
    return int(os.environ["WORLD_SIZE"])


def is_restarted() -> bool:
    """Whether the ranks were started again after one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def part_of_this_start(shared: Store, rank: int, world: int) -> Store:
    """A part of the store that nothing was written into before: its name is what the first rank draws.

    Agents keep one store from start to start, with the addresses of ranks that have died, and on several machines they
    need not agree on how often they started. So each rank draws a name for itself and waits for an answer to it, which
    ranks of this start alone can give and receive.

    Args:
        shared: the store of all starts.
        rank: the number of this rank.
        world: how many ranks there are.
    """
    own = uuid.uuid4().hex
    if rank:
        shared.set(f"contrail/hello/{rank}", own)
        chosen = shared.get(f"contrail/answer/{own}").decode()
        shared.set(f"contrail/{chosen}/thanks/{rank}", "")
        return PrefixStore(f"contrail/{chosen}", shared)
    waiting = set(range(1, world))
    while waiting:
        for other in [each for each in waiting if shared.check([f"contrail/hello/{each}"])]:
            name = shared.get(f"contrail/hello/{other}").decode()  # also of one that has died: nobody reads the answer
            shared.set(f"contrail/answer/{name}", own)
        waiting = {each for each in waiting if not shared.check([f"contrail/{own}/thanks/{each}"])}
        time.sleep(_PAUSE)
    return PrefixStore(f"contrail/{own}", shared)


def run_rank(main: Callable[[], int]) -> int:
    """Join the other ranks, run `main`, and give the status that this process ends with.

    What makes all ranks end is said by one of them: by the first, or where it goes on, by one that does not.

    Returns:
        That of `main`; 2 after a `UserError`, 130 after an interrupt, 75 where another rank is gone.
    """
    _end_with_parent()
    store, rank, world = next(iter(rendezvous("env://")))
    try:
        store = part_of_this_start(store, rank, world)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", store=store, rank=rank, world_size=world
        )
        status = main()
        dist.destroy_process_group()
        return status
    except UserError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the status is to be this one, whoever ends the others now
        if _is_to_speak(store, rank):
            sys.stderr.write("error: " + "\n".join(map(shown, str(error).split("\n"))) + "\n")
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        if not _is_refused(store):
            sys.stderr.write(f"rank {rank}: lost the other ranks: {_cause(error)}\n")
        return LOST


def _cause(error: RuntimeError) -> str:
    """What gloo or NCCL says, without the place in their code and without advice."""
    said = str(error).splitlines()[0]
    return (said.partition("] ")[2] or said).partition(". This is typically")[0]


def _is_to_speak(store: Store, rank: int) -> bool:
    with suppress(dist.DistError):
        if rank:
            with suppress(dist.DistError):
                store.wait(["refused"], _PATIENCE)
        return bool(store.add("refused", 1) == 1)
    return True  # the store is gone, and with it whoever might have said it


def _is_refused(store: Store) -> bool:
    with suppress(dist.DistError):
        return bool(store.check(["refused"]))
    return False


def _is_lost(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo/" in str(error) or "NCCL" in str(error)


def _end_with_parent() -> None:
    """No rank outlives the process that started it, however that ends; on Linux only."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    agent = os.environ.get(AGENT)
    if agent is not None and os.getppid() != int(agent):
        sys.exit(LOST)  # it ended before the kernel was asked
