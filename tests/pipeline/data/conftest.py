"""Small datasets on disk, in the layouts that users have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.data.datasets.camvid32.dataset import COLOURS

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


def grid(ids: list[int]) -> np.ndarray:
    """All of `ids` in 6 rows, the last one repeated to fill them."""
    columns = -(-len(ids) // 6)
    return np.array(ids + [ids[-1]] * (6 * columns - len(ids))).reshape(6, columns)


def camvid_colours() -> np.ndarray:
    colours = [(0, 0, 0), *(colour for colour, _ in COLOURS.values())]
    return np.array(colours + [colours[0]] * 4, np.uint8).reshape(6, 6, 3)


class Replicas:
    """Builds the public layouts of datasets in tiny, with every label id."""

    grid = staticmethod(grid)
    camvid_colours = staticmethod(camvid_colours)

    @staticmethod
    def image(path: Path, height: int = 6, width: int = 8, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(str(path).encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).convert(mode).save(path)
        return path

    @staticmethod
    def label(path: Path, ids: object, mode: str = "L") -> Path:
        """An index image; mode P gives it a palette, as COCO-Stuff and ADE20K tools do."""
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.asarray(ids, np.uint8))
        if mode == "P":
            picture.putpalette([value for index in range(256) for value in (255 - index, index, 9)])
        picture.save(path)
        return path

    @staticmethod
    def matlab(path: Path, variable: str, ids: object, dtype: type = np.uint16) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {variable: np.asarray(ids, dtype), "captions": np.array(["a street"], dtype=object)})
        return path

    def cityscapes(self, root: Path) -> Path:
        for split, names in {
            "train": ["aachen_000000_000019", "zurich_000121_000019"],
            "val": ["frankfurt_000000_000294", "frankfurt_000001_000538"],
            "test": ["berlin_000000_000019"],
        }.items():
            for name in names:
                city = name.split("_")[0]
                self.image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 6, 6)
                stem = root / "gtFine" / split / city / f"{name}_gtFine"
                self.label(Path(f"{stem}_labelIds.png"), grid(list(range(34))))
                self.label(Path(f"{stem}_instanceIds.png"), np.zeros((6, 6)))  # published beside, not to be read
                Image.new("RGBA", (6, 6)).save(f"{stem}_color.png")
                Path(f"{stem}_polygons.json").write_text("{}")
        return root

    def ade20k(self, root: Path) -> Path:
        ids = grid(list(range(151)))
        for folder, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
            for number in (1, 2):
                name = f"{prefix}_{number:08d}"
                mode = "L" if (folder, number) == ("training", 2) else "RGB"  # some of the images are grey
                height, width = ids.shape
                self.image(root / "images" / folder / f"{name}.jpg", height, width, mode)
                self.label(root / "annotations" / folder / f"{name}.png", ids)
        (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
        return root

    def pascal_context(self, root: Path) -> Path:
        ids = grid(list(range(460)))
        lists = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000009"]}
        for split, names in lists.items():
            for name in names:
                self.image(root / "JPEGImages" / f"{name}.jpg", *ids.shape)
                self.matlab(root / "trainval" / f"{name}.mat", "LabelMap", ids)
            (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        self.image(root / "JPEGImages" / "2010_999999.jpg")  # most of VOC has no context label
        return root

    def coco_164k(self, root: Path) -> Path:
        ids = grid([*range(182), 255])
        for folder, numbers in (("train2017", (9, 25)), ("val2017", (139,))):
            for number in numbers:
                self.image(root / "images" / folder / f"{number:012d}.jpg", *ids.shape)
                self.label(root / "annotations" / folder / f"{number:012d}.png", ids)
        return root

    def coco_10k(self, root: Path) -> Path:
        ids = grid(list(range(183)))
        lists = {"train": [77, 110], "test": [113]}
        (root / "imageLists").mkdir(parents=True)
        for split, numbers in lists.items():
            names = [f"COCO_train2014_{number:012d}" for number in numbers]
            (root / "imageLists" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
            for name in names:
                self.image(root / "images" / f"{name}.jpg", *ids.shape)
                self.matlab(root / "annotations" / f"{name}.mat", "S", ids, np.uint8)
        (root / "imageLists" / "all.txt").write_text("")
        return root

    def camvid32(self, root: Path) -> Path:
        for name in ("0001TP_006690", "0006R0_f00930", "0016E5_07959", "0001TP_008550", "Seq05VD_f00000"):
            self.image(root / "701_StillsRaw_full" / f"{name}.png", 6, 6)
            path = root / "LabeledApproved_full" / f"{name}_L.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(camvid_colours()).save(path)
        return root


@pytest.fixture
def replicas() -> Replicas:
    """Builders of tiny datasets in their public layouts."""
    return Replicas()
