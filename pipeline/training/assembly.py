"""Builds what trains from its settings: the loss term of a method, and the trainee around a segmentor."""

from __future__ import annotations

from pipeline.compute.random_streams import random_stream
from pipeline.losses import LOSSES
from pipeline.losses.shared.term import ContrastConfig, LossTerm
from pipeline.models.network.head import Taps
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.training_heads.trainee import Trainee, build_trainee, tapped_channels
from pipeline.training.methods import MethodConfig


def build_loss_term(config: MethodConfig, *, num_classes: int, ignore_index: int, training_images: int) -> LossTerm:
    """The loss term of a method."""
    loss = LOSSES.resolve(config.loss)
    return loss(config.settings, num_classes=num_classes, ignore_index=ignore_index, training_images=training_images)


def attach_training_heads(segmentor: Segmentor, term: LossTerm, *, auxiliary: bool, seed: int) -> Trainee:
    """The trainee of a segmentor and a loss term, training heads freshly initialised from `seed`.

    Raises:
        TypeError: the term taps features, but its Config has no dimension for their embeddings.
    """
    contrast = term.config if isinstance(term.config, ContrastConfig) else None
    if contrast is None and term.taps is not Taps.NONE:
        raise TypeError(f"{type(term).__name__}: taps {term.taps.value}, so its Config must be a ContrastConfig")
    with random_stream("method heads", seed):
        term_heads = term.build_heads(len(tapped_channels(segmentor, term.taps)))
    return build_trainee(
        segmentor,
        taps=term.taps,
        embedding_dim=contrast.embedding_dim if contrast is not None else 0,
        term_heads=term_heads,
        auxiliary=auxiliary,
        seed=seed,
    )
