"""ADE20K in the SceneParsing release, 150 classes.

Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.shared.dataset import Dataset, Pair, list_files, missing_folders, pair_by_name
from pipeline.data.datasets.shared.label_files import read_index_image
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, LabelTable
from pipeline.data.datasets.shared.palettes import voc_colours

# The first word of each line of objectInfo150.txt, in its order: label id 1 is `wall`. Where two lines begin alike, the
# second is told apart by another of its words.
_NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, table,
mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair, seat,
fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers, counter,
sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop,
stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land, bannister, escalator,
ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool,
stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot,
animal, bicycle, lake, dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag
"""

CLASS_NAMES = tuple(" ".join(name.split()) for name in _NAMES.split(","))

_FOLDERS = {"train": "training", "val": "validation"}


class ADE20K(Dataset):
    """`images/{training,validation}/*.jpg` with `annotations/{training,validation}/*.png` (ADEChallengeData2016).

    Label ids 1 to 150 are the classes, 0 is everything else and void. The split test has no public labels and is empty.
    """

    class_names = CLASS_NAMES
    palette = voc_colours(len(CLASS_NAMES))
    _table = LabelTable({0: IGNORE_INDEX, **{source: source - 1 for source in range(1, len(CLASS_NAMES) + 1)}})

    def layout_problems(self) -> list[str]:
        folders = {}
        for split, folder in _FOLDERS.items():
            folders[f"images/{folder}"] = f"images of {split}"
            folders[f"annotations/{folder}"] = f"labels of {split}"
        problems = missing_folders(self.root, folders)
        if problems and (self.root / "ADEChallengeData2016").is_dir():
            problems.append(f"point prepare.root at {self.root / 'ADEChallengeData2016'}")
        return problems

    def pairs(self, split: str) -> list[Pair]:
        if split not in _FOLDERS:
            return []
        images, labels = self.root / "images" / _FOLDERS[split], self.root / "annotations" / _FOLDERS[split]
        return pair_by_name(
            list_files(images),
            list_files(labels),
            label_path=lambda name: labels / f"{name}.png",
            image_path=lambda name: images / f"{name}.jpg",
        )

    def decode_label(self, path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
        return self._table.apply(read_index_image(path, content), path)
