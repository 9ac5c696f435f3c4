"""A tiny real dataset on disk, prepared by the real stage function."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten 64x96 images of a floor, a wall and a box, in the layout of `folder`."""
    root = tmp_path_factory.mktemp("tiny")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("floor\nwall\nbox\n")
    random = np.random.default_rng(0)
    for index in range(10):
        label = np.zeros((64, 96), np.uint8)
        label[:30] = 1
        top, left = random.integers(10, 30), random.integers(5, 60)
        label[top : top + 24, left : left + 28] = 2
        label[:2] = 255
        colours = np.array([[90, 80, 70], [150, 160, 170], [120, 60, 60]], np.int16)
        image = colours[np.minimum(label, 2)] + random.integers(-30, 30, (64, 96, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(label).save(root / "labels" / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def tiny_prepared(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same, prepared."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    prepare(PrepareConfig(dataset="folder", root=str(tiny_root)), folder)
    return load_prepared(folder, tiny_root)


HostWaits = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
def host_waits() -> HostWaits:
    """Lists what PyTorch reports of the host waiting for CUDA in the block: a message for each wait that it sees."""

    @contextmanager
    def listed() -> Iterator[list[str]]:
        waits: list[str] = []
        with warnings.catch_warnings(record=True) as caught:
            # Turning the mode on warns too, once a process: that it may not see every wait.
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield waits
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits += [str(each.message) for each in caught if "called a synchronizing" in str(each.message)]

    return listed
