"""Two real processes: identical banks, anchors over all ranks, gradients of all ranks' losses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pipeline.losses.shared.class_products import EmbeddingMap
from pipeline.losses.shared.distributed import gather_batch, sum_over_ranks, world_size
from pipeline.losses.shared.memory_bank import MemoryBank
from pipeline.losses.shared.pixel_anchor import Layer, class_anchors


def test_alone_everything_is_as_given() -> None:
    rows = torch.ones(2, 3)
    assert world_size() == 1
    assert gather_batch(rows) is rows
    assert sum_over_ranks(rows) is rows


@pytest.mark.slow
def test_two_ranks(tmp_path: Path, repository: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "embeddings": F.normalize(torch.randn(4, 4, 5, 6, generator=generator), dim=1),
        "labels": torch.randint(0, 3, (4, 5, 6), generator=generator),
        "weights": torch.randn(2, 3, 4, generator=generator),
    }
    batch["labels"][0][batch["labels"][0] == 2] = 255  # ranks differ in what is present
    torch.save(batch, tmp_path / "batch.pt")
    script = Path(__file__).with_name("one_of_two_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)], cwd=repository, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))

    for name, value in first["bank"].items():
        assert torch.equal(value, second["bank"][name]), name
    alone = MemoryBank(3, 4, 7, 50, pixels_per_region=20)
    for _ in range(2):
        alone.enqueue(batch["embeddings"], batch["labels"], generator=generator)
    shared = MemoryBank(3, 4, 7, 50, pixels_per_region=20)
    shared.load_state_dict(first["bank"])
    torch.testing.assert_close(shared.keys("region"), alone.keys("region"))
    assert torch.equal(shared.rings.count, alone.rings.count)
    assert torch.equal(shared.rings.pointer, alone.rings.pointer)

    embeddings = batch["embeddings"].requires_grad_()
    anchors = class_anchors(Layer(EmbeddingMap(embeddings), batch["labels"], batch["labels"]), 3)
    (anchors.means * batch["weights"].sum(0)).sum().backward()
    for rank, result in enumerate((first, second)):
        torch.testing.assert_close(result["means"], anchors.means)
        torch.testing.assert_close(result["gradient"], embeddings.grad[2 * rank : 2 * rank + 2])
