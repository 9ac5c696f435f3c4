"""The batches a training sees: which pairs, in which order, cut and coloured how."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.reading.allocator import keep_freed_memory
from pipeline.data.reading.augmentation import Draw, augment
from pipeline.data.reading.config import AugmentConfig
from pipeline.data.reading.decoded_cache import DecodedCache, ReadablePairs, can_fork
from serving.contract.errors import UserError

# Purposes of the random streams that are derived from the seed.
_ORDER, _CROP = 0, 1

# Images, labels, and what could not be read by name; or the text of a UserError.
_Item = tuple[Tensor, Tensor, dict[str, str]] | str


class TrainingBatches:
    """Batches of augmented crops, one per iteration; iterating again starts again.

    Every epoch visits every pair once, in an order of its own; a batch may span two epochs. Sample `position` of batch
    `iteration` follows from (seed, iteration, position) alone: a resumed training sees exactly the batches that it
    would have seen, whatever the number of workers, and two methods with one seed see the same batches.

    Args:
        split: the pairs to train on.
        config: the augmentation.
        batch_size: crops per batch.
        iterations: length of the whole training.
        seed: of order and augmentation, at least 0.
        start_iteration: finished iterations, when resuming.
        workers: forked processes that decode and augment, two batches ahead each; 0 does it in this process.
        skip_budget: so many unreadable pairs are left out, the one after them in the epoch shown instead; one more
            ends the training.
        left_out: unreadable pair -> why, of which there are some already where a training goes on; what is left out
            is added, and counts for the budget.
        say: shows a line on every pair that is left out.
        positions: of each batch, those that are made here, while other processes make the others; None for all.

    Raises:
        UserError: the split is empty. While iterating: a file is gone or not the one that was prepared, or a worker
            process died.
    """

    def __init__(
        self,
        split: ReadablePairs,
        config: AugmentConfig,
        *,
        batch_size: int,
        iterations: int,
        seed: int,
        start_iteration: int = 0,
        workers: int = 0,
        skip_budget: int = 0,
        left_out: dict[str, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
        positions: range | None = None,
    ) -> None:
        if batch_size < 1 or workers < 0 or seed < 0 or not 0 <= start_iteration <= iterations:
            raise ValueError(
                "expected batch_size >= 1, workers >= 0, seed >= 0 and 0 <= start_iteration <= iterations, got "
                f"{batch_size=}, {workers=}, {seed=}, {start_iteration=}, {iterations=}"
            )
        if workers and not can_fork():
            raise UserError(f"train.workers: {workers} processes, which this system cannot fork: set it to 0")
        if not len(split):
            raise UserError(
                "there is nothing to train on: the split has no pairs; check prepare.dataset and prepare.root"
            )
        positions = range(batch_size) if positions is None else positions
        self._source = _BatchSource(split, config, batch_size, seed, skips=skip_budget > 0, positions=positions)
        self._iterations = range(start_iteration, iterations)
        self._workers = workers
        self._skip_budget = skip_budget
        self._left_out = {} if left_out is None else left_out
        self._say = say

    def __len__(self) -> int:
        """Number of batches, those before `start_iteration` left out."""
        return len(self._iterations)

    def __iter__(self) -> Generator[tuple[Tensor, Tensor]]:
        """Yield `(images uint8 [B,3,h,w], labels int64 [B,h,w])`, of the positions that are made here."""
        with closing(self.compact()) as batches:
            for images, labels in batches:
                yield images, labels.long()  # only here: between processes labels travel as one byte per pixel

    def compact(self, *, pinned: bool = False) -> Generator[tuple[Tensor, Tensor]]:
        """Yield `(images uint8 [B,3,h,w], labels uint8 [B,h,w])`.

        Args:
            pinned: in page-locked memory, from which CUDA copies without the host waiting. With workers a thread of
                this process moves them there.
        """
        source = self._here() if self._workers == 0 else self._from_workers(pinned=pinned)
        with closing(source) as batches:  # ends the workers
            for batch in batches:
                if isinstance(batch, str):
                    raise UserError(batch)
                images, labels, skipped = batch
                self._note(skipped)
                if pinned and self._workers == 0:
                    images, labels = images.pin_memory(), labels.pin_memory()
                yield images, labels

    def _note(self, skipped: dict[str, str]) -> None:
        for name, problem in skipped.items():
            if name in self._left_out:
                continue
            self._left_out[name] = problem
            if len(self._left_out) > self._skip_budget:
                raise UserError(
                    f"{problem}; {len(self._left_out)} pairs could not be read now, and train.skip_budget is "
                    f"{self._skip_budget}: {', '.join(self._left_out)}"
                )
            self._say(f"warning: {name} is left out: {problem}")

    def names(self, iteration: int) -> list[str]:
        """The images of a whole batch, as reports call them."""
        return self._source.names(iteration)

    def _here(self) -> Generator[_Item]:
        keep_freed_memory()
        for iteration in self._iterations:
            yield self._source[iteration]

    def _from_workers(self, *, pinned: bool) -> Generator[_Item]:
        try:
            with warnings.catch_warnings():  # more workers than cores are the user's choice
                warnings.filterwarnings("ignore", "This DataLoader will create")
                loader = DataLoader(
                    self._source,
                    batch_size=None,  # an item is a whole batch
                    sampler=self._iterations,
                    num_workers=self._workers,
                    multiprocessing_context="fork",  # so that the cache is shared
                    worker_init_fn=_start_worker,
                    generator=torch.Generator(),  # else the loader would draw from the global one
                    pin_memory=pinned,
                )
                batches = iter(loader)
            yield from batches
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a data worker died ({str(error).splitlines()[0]}); it may have run out of memory, or of shared "
                "memory (in a container: docker run --shm-size=8g): lower train.workers, train.batch_size or "
                "train.augment.cache_decoded_bytes, or set train.workers to 0"
            ) from error


def _start_worker(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever stops them all lets the training end its step first
    keep_freed_memory()


class _BatchSource(Dataset[_Item]):
    """iteration -> uint8 images `[B,3,h,w]` and uint8 labels `[B,h,w]`, or the text of a UserError.

    An error is returned, not raised: torch would wrap what a worker raises into text with a stack trace.
    """

    def __init__(
        self,
        split: ReadablePairs,
        config: AugmentConfig,
        batch_size: int,
        seed: int,
        *,
        skips: bool,
        positions: range,
    ) -> None:
        self._split = split
        self._config = config
        self._batch_size = batch_size
        self._seed = seed
        self._cache = DecodedCache(split, config.cache_decoded_bytes)
        self._skips = skips
        self._positions = positions
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, iteration: int) -> _Item:
        skipped: dict[str, str] = {}
        try:
            crops = [self._crop(iteration, position, skipped) for position in self._positions]
        except UserError as error:
            return str(error)
        return torch.stack([image for image, _ in crops]), torch.stack([label for _, label in crops]), skipped

    def names(self, iteration: int) -> list[str]:
        """The images of a batch."""
        first = iteration * self._batch_size
        return [self._split.name(self._index(sample)) for sample in range(first, first + self._batch_size)]

    def _crop(self, iteration: int, position: int, skipped: dict[str, str]) -> tuple[Tensor, Tensor]:
        image, label = self._read(iteration * self._batch_size + position, skipped)
        return augment(image, label, Draw.random(self._config, self._stream(_CROP, iteration, position)), self._config)

    def _read(self, sample: int, skipped: dict[str, str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The pair of a sample, or where it cannot be read and may be left out, that of the next which can."""
        for after in range(len(self._split)):
            index = self._index(sample + after)
            try:
                return self._cache.read(index)
            except UserError as error:
                if not self._skips:
                    raise
                skipped[self._split.name(index)] = str(error)
        raise UserError("not one pair of the split can be read: " + "; ".join(list(skipped.values())[:3]))

    def _index(self, sample: int) -> int:
        """Which pair the training's sample number `sample` shows."""
        epoch, place = divmod(sample, len(self._split))
        if epoch != self._epoch:
            self._order = self._stream(_ORDER, epoch).permutation(len(self._split)).tolist()
            self._epoch = epoch
        return self._order[place]

    def _stream(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))
