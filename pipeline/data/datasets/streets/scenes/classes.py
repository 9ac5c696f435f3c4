"""The classes of the generated streets."""

from __future__ import annotations

ROAD, SIDEWALK, BUILDING, FENCE, VEGETATION, TERRAIN, SKY, POLE, SIGN, CAR, PEDESTRIAN = range(11)
VOID = 255

CLASSES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "fence": (190, 153, 153),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "pole": (153, 153, 153),
    "sign": (220, 220, 0),
    "car": (0, 0, 142),
    "pedestrian": (220, 20, 60),
}
"""Name -> colour, in the order of the train ids; the colours are those of Cityscapes' classes of the same kind."""
