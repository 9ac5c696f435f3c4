"""Two ranks of a test: each runs a function of a module of the tests, by name, and keeps what it gave.

As a program, one of them: python -m tests.pipeline.training.distributed.ranks MODULE FUNCTION RANK FOLDER.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parents[4]


def on_two_ranks(function: Callable[[], Any], folder: Path) -> list[Any]:
    """What a function of a module gives on each of two ranks, gloo between them."""
    name = [function.__module__, function.__name__]
    command = [sys.executable, "-W", "error", "-m", "tests.pipeline.training.distributed.ranks", *name]
    processes = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=500)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def main(module: str, function: str, rank: int, folder: Path) -> None:
    """Run the function, and save what it gave."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=2)
    torch.save(getattr(importlib.import_module(module), function)(), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
