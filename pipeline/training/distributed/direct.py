"""Small tensors from rank to rank on one machine, each through a socket of its own.

gloo hands every exchange from thread to thread, on both sides, and batch normalisation exchanges twice a layer: on two
cores that took a tenth of a step's time. Here the thread that wants the values sends and receives them.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from pipeline.losses.shared.distributed import gather_batch, own_rank, world_size

MOST_BYTES = 2**16  # of a message, which the kernel takes from all ranks before any of them reads
_PATIENCE = 1800  # seconds to wait for another rank; gloo's own
_RANK = struct.Struct("=q")


class DirectExchange:
    """Gathers small tensors of all ranks.

    Copies of a network share it, and processes that a rank starts have no part in it.

    Args:
        rank: the number of this rank.
        sockets: to each of the other ranks; none where the ranks cannot reach one another so, and talk as they always
            do.
    """

    def __init__(self, rank: int, sockets: Mapping[int, socket.socket]) -> None:
        self._rank = rank
        self._sockets = sockets
        for each in sockets.values():
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MOST_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _PATIENCE, 0))
        # A worker that reads data would hold them open, and nobody would see that this rank is gone.
        own = weakref.WeakMethod(self.close)
        os.register_at_fork(after_in_child=lambda: (close := own()) and close())

    @classmethod
    def connect(cls) -> DirectExchange:
        """Between all ranks, where all lie on one machine. Every rank calls this at once."""
        sockets = _connected()
        reached: list[Any] = [None] * world_size()
        dist.all_gather_object(reached, len(sockets) == world_size() - 1)
        if not all(reached):
            for each in sockets.values():
                each.close()
            sockets = {}
        return cls(own_rank(), sockets)

    def close(self) -> None:
        """End it; whoever waits for this rank is told."""
        for each in self._sockets.values():
            each.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> DirectExchange:
        return self

    @property
    def is_direct(self) -> bool:
        """Whether the ranks reach one another without gloo."""
        return bool(self._sockets)

    def gather(self, values: Tensor) -> Tensor:
        """What all ranks give, `[R,...]` in their order.

        Args:
            values: of one shape and type on every rank, on the CPU.

        Raises:
            DistNetworkError: another rank is gone, or silent for half an hour.
        """
        if not self._sockets or values.nbytes > MOST_BYTES:
            return gather_batch(values[None])
        whole = values.new_empty(1 + len(self._sockets), *values.shape)
        whole[self._rank] = values
        sent = whole[self._rank].numpy().data.cast("B")
        try:
            for each in self._sockets.values():
                each.sendall(sent)
            for rank, each in self._sockets.items():
                received = whole[rank].numpy().data.cast("B")
                while received:
                    count = each.recv_into(received)
                    if not count:
                        raise ConnectionResetError
                    received = received[count:]
        except OSError as error:
            silent = isinstance(error, BlockingIOError)
            reason = f"nothing came for {_PATIENCE} s" if silent else "Connection closed by peer"
            raise dist.DistNetworkError(reason) from error
        return whole


def _connected() -> dict[int, socket.socket]:
    """A socket to every rank that can be reached, in their order: those before this one are asked, the others ask."""
    sockets: dict[int, socket.socket] = {}
    with tempfile.TemporaryDirectory(prefix="contrail-rank-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder) / "socket")
        with suppress(OSError):  # such as a path that is too long: nobody reaches this rank then
            listener.bind(path)
            listener.listen(world_size())
        paths: list[Any] = [None] * world_size()
        dist.all_gather_object(paths, path)
        for rank in range(own_rank()):
            asked = socket.socket(socket.AF_UNIX)
            try:
                asked.connect(paths[rank])
                asked.sendall(_RANK.pack(own_rank()))
            except OSError:  # it lies on another machine, or in another container
                asked.close()
                continue
            sockets[rank] = asked
        dist.barrier()  # whoever can reach this rank has asked
        listener.setblocking(False)
        with suppress(OSError):  # until nobody is left
            while True:
                answered, _ = listener.accept()
                answered.setblocking(True)
                sockets[_RANK.unpack(answered.recv(_RANK.size, socket.MSG_WAITALL))[0]] = answered
    return dict(sorted(sockets.items()))
