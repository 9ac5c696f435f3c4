"""COCO-Stuff, 171 classes.

Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.arrays import read_matlab_label
from pipeline.data.datasets.shared.dataset import (
    Dataset,
    Pair,
    SubsetOptions,
    list_files,
    missing_folders,
    pair_by_name,
)
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable
from pipeline.data.datasets.shared.palettes import voc_colours

# labels.txt of the release: ids 1 to 182.
_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, backpack,
umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat,
baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, mirror,
dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair drier, toothbrush, hair brush,
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile,
cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other,
floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill,
house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other,
plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other,
skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree,
vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
window-blind, window-other, wood
"""

NAMES = dict(enumerate((" ".join(name.split()) for name in _NAMES.split(",")), start=1))
"""Id -> name, all 182."""

# COCO has no segmentation of these things.
UNUSED = (
    "street sign",
    "hat",
    "shoe",
    "eye glasses",
    "plate",
    "mirror",
    "window",
    "desk",
    "door",
    "blender",
    "hair brush",
)

CLASSES = {index: name for index, name in NAMES.items() if name not in UNUSED}
"""Id -> name of the 171 classes with annotations; train ids follow the ids."""


@dataclass(frozen=True)
class CocoStuffOptions(SubsetOptions):
    """Which release.

    Attributes:
        release: `164k` (COCO 2017, 118 287 and 5000 images) or `10k` (version 1.1, 9000 and 1000 images).
    """

    release: Literal["164k", "10k"] = "164k"


class CocoStuff(Dataset):
    """Both releases, in their own layouts.

    164k: `images/{train2017,val2017}/*.jpg` with the stuff-thing maps `annotations/{train2017,val2017}/*.png` (or
    under `stuffthingmaps/`); a pixel holds the class's id less one, 255 is unlabelled.
    10k: `images/*.jpg`, `annotations/*.mat` (variable `S`; ids as listed, 0 is unlabelled), `imageLists/train.txt` and
    `imageLists/test.txt`; the latter is what is reported on, and stands here as val.
    The split test is empty.
    """

    Options = CocoStuffOptions
    options: CocoStuffOptions
    class_names = tuple(CLASSES.values())
    palette = voc_colours(len(CLASSES))
    # Ids without annotations cannot occur; if one does, it is not a class of the benchmark: void.
    _matlab_table = LabelTable(
        {
            0: IGNORE_INDEX,
            **dict.fromkeys(NAMES, IGNORE_INDEX),
            **{source: train for train, source in enumerate(CLASSES)},
        }
    )
    _png_table = LabelTable(
        {
            255: IGNORE_INDEX,
            **dict.fromkeys((source - 1 for source in NAMES), IGNORE_INDEX),
            **{source - 1: train for train, source in enumerate(CLASSES)},
        }
    )

    def layout_problems(self) -> list[str]:
        if self.options.release == "10k":
            problems = missing_folders(self.root, {"images": "images", "annotations": "labels, one .mat per image"})
            lists = self.root / "imageLists"
            problems += [
                f"{lists / name}: missing file (names of its images)"
                for name in ("train.txt", "test.txt")
                if self.root.is_dir() and not (lists / name).is_file()
            ]
            return problems
        folders = {}
        for split in ("train", "val"):
            folders[f"images/{split}2017"] = f"images of {split}, from {split}2017.zip"
            folders[f"{self._maps()}/{split}2017"] = f"labels of {split}, from stuffthingmaps_trainval2017.zip"
        return missing_folders(self.root, folders)

    def pairs(self, split: str) -> list[Pair]:
        if split == "test":
            return []
        if self.options.release == "10k":
            names = (self.root / "imageLists" / {"train": "train.txt", "val": "test.txt"}[split]).read_text("utf-8")
            return [
                Pair(name, self.root / "images" / f"{name}.jpg", self.root / "annotations" / f"{name}.mat")
                for name in sorted(names.split())
            ]
        images, labels = self.root / "images" / f"{split}2017", self.root / self._maps() / f"{split}2017"
        return pair_by_name(
            list_files(images),
            # MMSegmentation's conversion leaves its own files beside the released ones.
            [path for path in list_files(labels, (".png",)) if not path.stem.endswith("_labelTrainIds")],
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.jpg",
        )

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        if path.suffix == ".mat":
            return self._matlab_table.apply(read_matlab_label(path, "S", content), path)
        return self._png_table.apply(read_index_image(path, content), path)

    def _maps(self) -> str:
        return "stuffthingmaps" if (self.root / "stuffthingmaps").is_dir() else "annotations"
