"""Small datasets on disk, in the layouts that users have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]
WriteLabel = Callable[[Path, object], Path]


@pytest.fixture
def camvid_root() -> Path:
    """The folder of the real CamVid, named by the environment."""
    root = os.environ.get("CONTRAIL_CAMVID")
    if not root:
        pytest.skip("CONTRAIL_CAMVID does not name a folder with CamVid")
    return Path(root)


@pytest.fixture
def write_image() -> WriteImage:
    """Write an RGB image of reproducible noise; every path gets its own pixels unless `seed` is given."""

    def write(path: Path, height: int = 6, width: int = 8, seed: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed if seed is not None else list(str(path.name).encode()))
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def write_label() -> WriteLabel:
    """Write an index image from anything that `numpy.asarray` takes; a number fills a 6x8 label."""

    def write(path: Path, ids: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(ids, dtype=np.uint8)
        Image.fromarray(np.full((6, 8), array, dtype=np.uint8) if array.ndim == 0 else array).save(path)
        return path

    return write


@pytest.fixture
def camvid_replica(tmp_path: Path, write_image: WriteImage, write_label: WriteLabel) -> Path:
    """CamVid's layout with two training pairs and one pair in val and test; every label id appears in training."""
    root = tmp_path / "camvid"
    every_id = np.arange(48).reshape(6, 8) % 12
    for split, names in {
        "train": ("0001TP_006690", "0016E5_00390"),
        "val": ("0016E5_07959",),
        "test": ("Seq05VD_f00000",),
    }.items():
        for name in names:
            write_image(root / split / f"{name}.png")
            write_label(root / f"{split}annot" / f"{name}.png", every_id)
    return root
