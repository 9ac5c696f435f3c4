"""What the benchmark of the losses runs: the losses at a stated size, their floors, the published loop, a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.losses.per_group_contrast import per_group_contrast
from pipeline.compute.devices import autocast_dtype
from pipeline.losses.contextrast.loss import Contextrast, ContextrastConfig
from pipeline.losses.pixel_contrast.loss import PixelContrast, PixelContrastConfig
from pipeline.losses.shared.memory_bank import MemoryBank
from pipeline.losses.supervised.cross_entropy import segmentation_loss
from pipeline.models.network.config import ModelConfig
from pipeline.models.network.head import Logits, TraineeOutput
from pipeline.models.network.segmentor import build_segmentor

IGNORE = 255
TILE_KEYS = 1216  # keys per product of the tiled floor: the fastest of those tried
HEADS = nn.ModuleDict()
Task = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        images: B of pixel contrast's batch.
        dim: D of the embeddings.
        side: height and width of the embedding map.
        classes: classes, all of them in every image.
        max_samples: most anchors.
        max_views: most anchors per group.
        bank: region and pixel rows per class.
        crop: height and width of Contextrast's images.
        crop_images: how many of them.
        backbone: encoder of the network whose training step Contextrast is compared with.
        step_crop: height and width of the images of the default network's training step.
        step_images: how many of them.
        step_classes: classes that it tells apart.
        teacher: encoder of the network that is distilled into it.
    """

    images: int = 4
    dim: int = 256
    side: int = 128
    classes: int = 19
    max_samples: int = 1024
    max_views: int = 100
    bank: tuple[int, int] = (5000, 5000)
    crop: tuple[int, int] = (512, 1024)
    crop_images: int = 2
    backbone: str = "hrnet_w18_small_v2"
    step_crop: tuple[int, int] = (192, 256)
    step_images: int = 8
    step_classes: int = 11
    teacher: str = "tf_efficientnet_lite2"

    @property
    def groups(self) -> int:
        """(image, class) groups of pixel contrast's batch."""
        return self.images * self.classes

    @property
    def anchors(self) -> int:
        """Anchors that the sampler takes from it."""
        return self.groups * min(self.max_samples // self.groups, self.max_views)


QUICK = Sizes(
    images=2,
    dim=16,
    side=32,
    classes=5,
    max_samples=64,
    max_views=8,
    bank=(30, 50),
    crop=(128, 256),
    crop_images=1,
    step_crop=(64, 96),
    step_images=2,
    teacher="mobilenetv3_small_100",
)


class PixelCase:
    """Pixel contrast's batch: random unit embeddings, every class in every image, half of the pixels predicted right.

    Args:
        sizes: what is measured.
        device: where.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.generator = torch.Generator(device).manual_seed(0)
        shape = (sizes.images, sizes.dim, sizes.side, sizes.side)
        self.embeddings = F.normalize(self._normal(*shape), dim=1).requires_grad_()
        self.labels = torch.randint(
            0, sizes.classes, (sizes.images, sizes.side, sizes.side), generator=self.generator, device=device
        )
        self.logits = self._normal(sizes.images, sizes.classes, sizes.side, sizes.side)
        right = torch.rand(self.labels.shape, generator=self.generator, device=device) < 0.5
        self.logits.scatter_add_(1, self.labels[:, None], 10.0 * right[:, None])

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device)

    def term(self, *, memory: bool) -> PixelContrast:
        """The term of this size, its bank full from the start."""
        sizes = self.sizes
        config = PixelContrastConfig(
            embedding_dim=sizes.dim,
            max_samples=sizes.max_samples,
            max_views=sizes.max_views,
            memory="both" if memory else "none",
            region_size=sizes.bank[0],
            pixel_size=sizes.bank[1],
        )
        term = PixelContrast(config, num_classes=sizes.classes, ignore_index=IGNORE, training_images=1)
        if term.bank is not None:
            fill_bank(term.bank, self.generator)
        return term.to(self.device)

    def step(self, term: PixelContrast) -> Task:
        """Forward and backward of the term; with memory, its update of the bank is part of it."""
        output = TraineeOutput(Logits(self.logits), (self.embeddings,))

        def run() -> None:
            self.clear()
            torch.autograd.backward(term(output, self.labels, heads=HEADS, generator=self.generator).loss)

        return run

    def per_group_step(self) -> Task:
        """Forward and backward of the algorithm as published."""

        def run() -> None:
            self.clear()
            loss = per_group_contrast(
                self.embeddings,
                self.labels,
                self.logits.max(dim=1).indices,
                max_samples=self.sizes.max_samples,
                max_views=self.sizes.max_views,
                temperature=0.1,
                base_temperature=0.07,
                generator=self.generator,
            )
            torch.autograd.backward(loss)

        return run

    def floor(self, keys: Tensor | None = None) -> Task:
        """One gather of as many rows with its dense backward pass, and their similarities forward and backward.

        Args:
            keys: `[M,D]` constant keys, whose similarities are formed in tiles; None for the rows themselves.
        """
        sizes = self.sizes
        index = torch.randperm(sizes.images * sizes.side**2, generator=self.generator, device=self.device)
        image, pixel = index[: sizes.anchors] // sizes.side**2, index[: sizes.anchors] % sizes.side**2

        def run() -> None:
            self.clear()
            rows = self.embeddings.flatten(2)[image, :, pixel]
            if keys is None:
                similarities = rows @ rows.T
                torch.autograd.backward(similarities, similarities.detach())
            else:
                torch.autograd.backward(rows, tiled_products(rows.detach(), keys))

        return run

    def clear(self) -> None:
        """Let go of the gradient."""
        self.embeddings.grad = None

    def bank_update(self, bank: MemoryBank) -> Task:
        """The bank's update by the batch."""
        return lambda: bank.enqueue(self.embeddings, self.labels, generator=self.generator)


def tiled_products(rows: Tensor, keys: Tensor) -> Tensor:
    """The two products of a matrix of similarities forward and backward, without ever holding the matrix."""
    total = torch.zeros_like(rows)
    buffer = rows.new_empty(len(rows) * TILE_KEYS)
    for start in range(0, len(keys), TILE_KEYS):
        tile = keys[start : start + TILE_KEYS]
        similarities = torch.mm(rows, tile.T, out=buffer[: len(rows) * len(tile)].view(len(rows), -1))
        total.addmm_(similarities, tile)
    return total


def fill_bank(bank: MemoryBank, generator: torch.Generator) -> None:
    """Fill every slot with random unit rows."""
    rows = torch.randn(bank.rings.rows.shape, generator=generator, device=generator.device)
    bank.rings.rows.copy_(F.normalize(rows, dim=2))
    for ring, size in enumerate(bank.rings.sizes):
        bank.rings.count[ring] = size


class LayerCase:
    """Contextrast on four layers of a batch, beside a training step of a network.

    Args:
        sizes: what is measured.
        device: where.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.generator = torch.Generator(device).manual_seed(0)
        height, width = sizes.crop
        self.embeddings = tuple(
            F.normalize(
                torch.randn(
                    sizes.crop_images, sizes.dim, height // s, width // s, generator=self.generator, device=device
                ),
                dim=1,
            ).requires_grad_()
            for s in (4, 8, 16, 32)
        )
        # regions with an inside, as in images: blocks of 32 pixels, the prediction another set of blocks
        truth, prediction = (self._blocks() for _ in range(2))
        self.labels = truth.repeat_interleave(32, 1).repeat_interleave(32, 2)
        small = prediction.repeat_interleave(8, 1).repeat_interleave(8, 2)
        self.logits = F.one_hot(small, sizes.classes).permute(0, 3, 1, 2).float().contiguous()

    def _blocks(self) -> Tensor:
        shape = (self.sizes.crop_images, self.sizes.crop[0] // 32, self.sizes.crop[1] // 32)
        return torch.randint(0, self.sizes.classes, shape, generator=self.generator, device=self.device)

    def clear(self) -> None:
        """Let go of the gradients."""
        for embeddings in self.embeddings:
            embeddings.grad = None

    def step(self) -> Task:
        """Forward and backward of Contextrast."""
        config = ContextrastConfig(embedding_dim=self.sizes.dim)
        term = Contextrast(config, num_classes=self.sizes.classes, ignore_index=IGNORE, training_images=1)
        output = TraineeOutput(Logits(self.logits), self.embeddings)

        def run() -> None:
            self.clear()
            torch.autograd.backward(term(output, self.labels, heads=HEADS, generator=self.generator).loss)

        return run

    def network_step(self) -> Task:
        """A training step of the network without any contrast: forward, cross entropy, backward.

        Precision and memory layout are those that training chooses by itself.
        """
        config = ModelConfig(backbone=self.sizes.backbone, pretrained=False, head="hrnet")
        segmentor = build_segmentor(config, self.sizes.classes, seed=0).train()
        segmentor.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.randn(self.sizes.crop_images, 3, *self.sizes.crop, generator=self.generator, device=self.device)
        images = images.contiguous(memory_format=torch.channels_last)
        precision = autocast_dtype("auto", self.device)

        def run() -> None:
            segmentor.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, dtype=precision, enabled=precision is not None):
                logits = segmentor(images)
            torch.autograd.backward(segmentation_loss(Logits(logits), self.labels, ignore_index=IGNORE))

        return run
