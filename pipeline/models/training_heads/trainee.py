"""The network that trains, and how it becomes the one that ships."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.compute.random_streams import random_stream
from pipeline.models.network.head import Logits, SegmentorFeatures, Taps, TraineeOutput, Unprojected
from pipeline.models.network.segmentor import Segmentor
from pipeline.models.training_heads.projection import AuxiliaryHead, ProjectionHead


class StripError(Exception):
    """The stripped segmentor is not, bit for bit, the network that was trained."""


class Trainee(nn.Module):
    """A segmentor with the heads that only training has.

    Args:
        segmentor: what will ship.
        taps: which features are projected.
        projections: one projection head per tapped layer, shallow to deep.
        auxiliary: classifier on the segmentor's `auxiliary_stage`, or None.
        term_heads: learnable parts of the loss term.

    Attributes:
        training_heads: ModuleDict of `projections`, `auxiliary` (where there is one) and `term`: everything that
            stripping leaves behind.
    """

    def __init__(
        self,
        segmentor: Segmentor,
        *,
        taps: Taps,
        projections: nn.ModuleList,
        auxiliary: nn.Module | None,
        term_heads: nn.ModuleDict,
    ) -> None:
        super().__init__()
        self.segmentor = segmentor
        self.taps = taps
        self.training_heads = nn.ModuleDict({"projections": projections, "term": term_heads})
        if auxiliary is not None:
            self.training_heads["auxiliary"] = auxiliary

    @property
    def layers(self) -> int:
        """Number of tapped layers."""
        return len(tapped_channels(self.segmentor, self.taps))

    @property
    def projections(self) -> tuple[ProjectionHead, ...]:
        """One for each tapped layer."""
        return tuple(cast(Iterable[ProjectionHead], self.training_heads["projections"]))

    @property
    def term_heads(self) -> nn.ModuleDict:
        """Learnable parts of the loss term."""
        heads = self.training_heads["term"]
        assert isinstance(heads, nn.ModuleDict)
        return heads

    def forward(self, images: Tensor, *, embed: bool, everywhere: bool = False) -> TraineeOutput:
        """One training forward.

        Args:
            images: `[B,3,H,W]` normalised.
            embed: project the tapped features; when false nothing of the contrast is computed.
            everywhere: the embeddings as maps; else what they are projected from, for losses that want few of them.
        """
        features = self.segmentor.features(images)
        logits = features.head.logits
        if "auxiliary" in self.training_heads:
            assert self.segmentor.auxiliary_stage is not None
            inner = features.stages[self.segmentor.auxiliary_stage]
            logits = Logits(logits.main, (*logits.auxiliary, self.training_heads["auxiliary"](inner)))
        embeddings: tuple[Tensor | Unprojected, ...] = ()
        if embed:
            tapped = tapped_features(features, self.taps)
            embeddings = tuple(
                project(tensor) if everywhere else project.unprojected(tensor)
                for project, tensor in zip(self.projections, tapped, strict=True)
            )
        return TraineeOutput(logits, embeddings, features.head.input)


def tapped_channels(segmentor: Segmentor, taps: Taps) -> tuple[int, ...]:
    """Channels of the tapped layers, shallow to deep."""
    if taps is Taps.NONE:
        return ()
    return (segmentor.head_input_channels,) if taps is Taps.HEAD_INPUT else segmentor.stage_channels


def tapped_features(features: SegmentorFeatures, taps: Taps) -> tuple[Tensor, ...]:
    """The tapped layers `[B,C_i,h_i,w_i]`, shallow to deep."""
    if taps is Taps.NONE:
        return ()
    return (features.head.input,) if taps is Taps.HEAD_INPUT else features.stages


def build_trainee(
    segmentor: Segmentor, *, taps: Taps, embedding_dim: int, term_heads: nn.ModuleDict, auxiliary: bool, seed: int
) -> Trainee:
    """Put training heads around `segmentor`, their initial weights from a stream of their own.

    Args:
        segmentor: what will ship; neither copied nor changed.
        taps: which features are projected.
        embedding_dim: D of the embeddings.
        term_heads: learnable parts of the loss term, already initialised.
        auxiliary: add the auxiliary classifier where the head's architecture has one.
        seed: of the training heads' initial weights.
    """
    with random_stream("training heads", seed):
        projections = nn.ModuleList(
            ProjectionHead(channels, embedding_dim) for channels in tapped_channels(segmentor, taps)
        )
        stage = segmentor.auxiliary_stage
        auxiliary_head = (
            AuxiliaryHead(segmentor.stage_channels[stage], segmentor.num_classes)
            if auxiliary and stage is not None
            else None
        )
    return Trainee(segmentor, taps=taps, projections=projections, auxiliary=auxiliary_head, term_heads=term_heads).to(
        segmentor.mean.device
    )


@torch.no_grad()
def strip(trainee: Trainee, images: Tensor) -> Segmentor:
    """The segmentor of `trainee`, built anew from its configuration and its own tensors, and proven equal.

    What is returned shares nothing with the trainee: no hook, wrapper or attribute that training left on a module can
    ship. Both networks run in evaluation mode on `images`; the trainee is left in the mode it was in.

    Args:
        trainee: after training.
        images: `[B,3,H,W]` normalised, on the trainee's device.

    Returns:
        The segmentor in evaluation mode, on the same device.

    Raises:
        StripError: logits are not finite, not bit-identical before and after, or the trainee cannot be taken apart.
    """
    trained = trainee.segmentor
    owned = {id(tensor) for tensor in chain(trained.parameters(), trained.buffers())}
    for name, tensor in chain(trainee.training_heads.named_parameters(), trainee.training_heads.named_buffers()):
        if id(tensor) in owned:
            raise StripError(f"training_heads.{name} is a tensor of the segmentor too: it cannot be taken apart")
    modes = {module: module.training for module in trainee.modules()}
    try:
        before = trainee.eval()(images, embed=True).logits.main
    finally:
        for module, mode in modes.items():
            module.training = mode
    stripped = _rebuild(trained)
    after = stripped(images)
    if not torch.isfinite(before).all():
        raise StripError("the trained network gives logits that are not finite: the training has diverged")
    if not torch.equal(before, after):
        largest = (before.double() - after.double()).abs().max().item() if before.shape == after.shape else float("nan")
        raise StripError(
            f"logits differ before and after stripping: shapes {tuple(before.shape)} and {tuple(after.shape)}, "
            f"largest difference {largest:g}; something outside the segmentor changes what it computes"
        )
    return stripped


def _rebuild(trained: Segmentor) -> Segmentor:
    with random_stream("rebuild", 0):
        stripped = Segmentor(dataclasses.replace(trained.config, pretrained=False), trained.num_classes)
    tensors = {name: tensor.detach().clone() for name, tensor in trained.state_dict().items()}
    try:
        # Assigned, not copied into: the memory format (channels_last) decides which kernels run, and so the last bits.
        stripped.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise StripError(f"the trained segmentor is not the one that its configuration describes: {detail}") from None
    stripped.config = trained.config
    return stripped.to(trained.mean.device).eval()
