"""A validation that all ranks share: each predicts some of the images, and the counts of all of them are summed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.data.datasets.shared.prepared import PreparedSplit
from pipeline.evaluation.evaluation import Predict, count_confusion, split_miou
from pipeline.losses.shared.distributed import own_rank, world_size
from pipeline.training.distributed.exchange import any_rank, summed


def shared_miou(
    predict: Predict,
    split: PreparedSplit,
    num_classes: int,
    ignore_index: int,
    *,
    threads: int,
    stop: Callable[[], bool],
) -> float | None:
    """The mIoU in [0,1] over the whole split, the same on every rank; None where any rank was asked to stop.

    Args:
        predict: from an image to its mask, the same on every rank.
        split: images and labels.
        num_classes: C.
        ignore_index: label outside every class.
        threads: of each rank, that read ahead.
        stop: whether to leave the rest; asked after every image.

    Raises:
        UserError: as `pipeline.evaluation.evaluation.evaluate_miou`.
    """

    def stop_counting(done: int, total: int) -> None:
        if stop():
            raise _Stopped

    confusion, stopped = np.zeros((num_classes, num_classes), dtype=np.int64), False
    try:
        confusion = count_confusion(
            predict,
            split,
            num_classes,
            ignore_index,
            threads=threads,
            progress=stop_counting,
            part=slice(own_rank(), None, world_size()),
        )
    except _Stopped:
        stopped = True
    return None if any_rank(stopped) else split_miou(summed(confusion), len(split))


class _Stopped(Exception):  # noqa: N818 - no error: it was asked for
    pass
