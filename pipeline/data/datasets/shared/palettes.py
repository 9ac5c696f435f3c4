"""Colours for datasets that publish none, or only for a viewer."""

from __future__ import annotations

from pipeline.data.datasets.shared.labels import Colour


def voc_colours(count: int, first: int = 1) -> tuple[Colour, ...]:
    """Colours `first` to `first + count - 1` of the colour map of PASCAL VOC; all 256 differ, colour 0 is black.

    The bits of the index are dealt to red, green and blue in turn, the lowest bits becoming the highest of the colour
    (VOC development kit, `VOClabelcolormap`).
    """
    colours = []
    for index in range(first, first + count):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
        colours.append((channels[0], channels[1], channels[2]))
    return tuple(colours)
