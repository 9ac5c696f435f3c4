"""The unlabelled images that a mean teacher is shown."""

from __future__ import annotations

from pipeline.compute.random_streams import stream_seed
from pipeline.data.datasets.shared.prepared import Prepared
from pipeline.data.reading.config import AugmentConfig
from pipeline.data.reading.unlabelled import StrongView, UnlabelledBatches
from pipeline.training.helpers.config import MeanTeacherConfig
from serving.contract.errors import UserError


def unlabelled_batches(
    name: str,
    settings: MeanTeacherConfig,
    augment: AugmentConfig,
    prepared: Prepared,
    *,
    batch_size: int,
    iterations: int,
    seed: int,
    start_iteration: int,
    workers: int,
    positions: range,
) -> UnlabelledBatches:
    """The unlabelled images, one batch per labelled one.

    Args:
        name: of the method.
        settings: of its mean teacher.
        augment: as of the labelled images.
        prepared: whose images they are.
        batch_size: as of `UnlabelledBatches`, like the following ones.
        iterations: how many batches.
        seed: the branch's seed.
        start_iteration: finished batches.
        workers: of this process.
        positions: of each batch, those that are made.

    Raises:
        UserError: there are none.
    """
    if prepared.unlabelled is None:
        raise UserError(
            f"methods.{name}.mean_teacher: the dataset {prepared.dataset_name} lists no unlabelled image; put "
            "some into images/unlabelled (dataset folder), or train on few labels (prepare.options.train_images)"
        )
    return UnlabelledBatches(
        prepared.unlabelled,
        augment,
        StrongView(settings.colour, settings.cutmix),
        batch_size=batch_size,
        iterations=iterations,
        seed=stream_seed("unlabelled batches", seed),
        start_iteration=start_iteration,
        workers=workers,
        positions=positions,
    )
