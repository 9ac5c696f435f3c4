"""One rank of the two that `test_distributed.py` starts: python one_of_two_ranks.py RANK FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from pipeline.losses.shared.class_products import EmbeddingMap
from pipeline.losses.shared.memory_bank import MemoryBank
from pipeline.losses.shared.pixel_anchor import Layer, class_anchors


def main(rank: int, folder: Path) -> None:
    """Enqueue and average this rank's half of the batch, and save what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    batch = torch.load(folder / "batch.pt")
    half = slice(2 * rank, 2 * rank + 2)
    embeddings, labels = batch["embeddings"][half].requires_grad_(), batch["labels"][half]
    bank = MemoryBank(3, 4, 7, 50, pixels_per_region=20)
    for _ in range(2):
        bank.enqueue(embeddings, labels, generator=torch.Generator().manual_seed(rank))
    anchors = class_anchors(Layer(EmbeddingMap(embeddings), labels, labels), 3)
    (anchors.means * batch["weights"][rank]).sum().backward()
    torch.save(
        {"bank": bank.state_dict(), "means": anchors.means.detach(), "gradient": embeddings.grad},
        folder / f"rank{rank}.pt",
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
