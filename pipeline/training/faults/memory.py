"""A step that does not fit into memory: which batch would."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from serving.contract.errors import UserError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def largest_batch(batch_size: int, attempt: Callable[[int], None]) -> int:
    """The largest of batch_size // 2, // 4, ... for which `attempt` does not run out of memory; 0 for none."""
    size = batch_size // 2
    while size:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size //= 2
        else:
            return size
    return 0


def out_of_memory(batch_size: int, crop: tuple[int, int], fits: int | None, *, accumulate: int) -> UserError:
    """The one message about it.

    Args:
        batch_size: images per forward.
        crop: height and width.
        fits: the largest batch that was found to fit, 0 for none; None where that was not tried.
        accumulate: forwards per step, as it is set.
    """
    what = f"training: out of memory on the first step, with train.batch_size {batch_size} and crops of {list(crop)}"
    if fits is None:
        return UserError(
            f"{what}; make train.batch_size smaller (with train.accumulate a step still sees as many images), or "
            "train.augment.crop"
        )
    if fits:
        parts = accumulate * batch_size // fits
        return UserError(
            f"{what}; a batch of {fits} fits: set train.batch_size to {fits} (with train.accumulate {parts} a step "
            "still sees as many images), or make train.augment.crop smaller"
        )
    return UserError(f"{what}; not even one image fits: make train.augment.crop or the network smaller")
