"""Decoded images and labels in memory that forked worker processes share."""

from __future__ import annotations

import mmap
import multiprocessing
import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.contract.errors import UserError


class ReadablePairs(Protocol):
    """What batches are made of: a `PreparedSplit`, or what looks like one."""

    def __len__(self) -> int:
        """Number of pairs."""

    def name(self, index: int) -> str:
        """What reports call pair `index`."""

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of pair `index` in pixels."""

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """The image of pair `index`: `[H,W,3]` uint8 RGB."""

    def read_label(self, index: int) -> NDArray[np.uint8]:
        """The label of pair `index`: `[H,W]` uint8 train ids."""


class DecodedCache:
    """Reads the pairs of a split, keeping as many decoded ones as fit into a fixed number of bytes.

    Which pairs are kept is settled beforehand (the first ones that fit): an epoch visits every pair once, and a cache
    that evicted the least recently used pair would evict each one just before it is needed. The memory is an
    anonymous shared mapping, so that what one forked worker has decoded the others need not; pages are taken only when
    they are first written.

    Args:
        split: the pairs.
        capacity_bytes: bound on the decoded size; a pair of H x W pixels takes 4 H W bytes.

    Raises:
        UserError: the system does not give so much memory.
    """

    def __init__(self, split: ReadablePairs, capacity_bytes: int) -> None:
        self._split = split
        self._offsets: dict[int, int] = {}
        end = 0
        for index in range(len(split)):
            height, width = split.size(index)
            if end + 4 * height * width <= capacity_bytes:
                self._offsets[index] = end
                end += 4 * height * width
        try:
            self._buffer = np.frombuffer(mmap.mmap(-1, max(1, end)), dtype=np.uint8)
        except OSError as error:
            raise UserError(
                f"train.augment.cache_decoded_bytes: the {len(self._offsets)} pairs that fit into {capacity_bytes:,} "
                f"bytes take {end:,} of memory, which this machine does not give ({error.strerror or error}); lower it"
            ) from error
        self._filled = np.frombuffer(mmap.mmap(-1, max(1, len(split))), dtype=np.bool_)
        # Guards the flags only: a pair is written before its flag is set, and two processes that decode the same pair
        # write the same bytes.
        self._lock = multiprocessing.get_context("fork").Lock() if can_fork() else threading.Lock()

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image `[H,W,3]` and label `[H,W]` of pair `index`, uint8, not to be written to.

        Raises:
            UserError: a file is gone, or not the one that was prepared.
        """
        offset = self._offsets.get(index)
        if offset is None:
            return self._split.read_image(index), self._split.read_label(index)
        height, width = self._split.size(index)
        pixels = height * width
        image = self._buffer[offset : offset + 3 * pixels].reshape(height, width, 3)
        label = self._buffer[offset + 3 * pixels : offset + 4 * pixels].reshape(height, width)
        with self._lock:
            filled = bool(self._filled[index])
        if not filled:
            decoded, ids = self._split.read_image(index), self._split.read_label(index)
            image[:], label[:] = decoded, ids
            with self._lock:
                self._filled[index] = True
        return image, label


def can_fork() -> bool:
    """Whether this system makes processes that share memory with the one that they come from; Windows does not."""
    return "fork" in multiprocessing.get_all_start_methods()
