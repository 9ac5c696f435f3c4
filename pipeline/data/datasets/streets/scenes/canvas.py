"""Pixels being drawn: colour, label and depth, with a depth test for every surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes.classes import ROAD, SIDEWALK, TERRAIN, VOID
from pipeline.data.datasets.streets.scenes.noise import Floats
from pipeline.data.datasets.streets.scenes.random_stream import Colour

FAR = 1000.0
"""Depth of the sky in metres."""

_ONE = 16  # polygon corners lie on a grid of sixteenths of a pixel, so that the inside test is exact

_IS_GROUND = np.zeros(256, np.bool_)
_IS_GROUND[[ROAD, SIDEWALK, TERRAIN]] = True

Point = tuple[float, float]


class Canvas:
    """An image being drawn.

    Attributes:
        colour: `[H,W,3]` float32, light reaching the camera, about 0 to 1.
        label: `[H,W]` uint8 train ids, 255 for void.
        depth: `[H,W]` float32, metres.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.colour = np.zeros((height, width, 3), dtype=np.float32)
        self.label = np.full((height, width), VOID, dtype=np.uint8)
        self.depth = np.full((height, width), FAR, dtype=np.float32)

    def surface(
        self,
        mask: NDArray[np.bool_],
        colour: Floats,
        label: int | NDArray[np.uint8],
        depth: Floats,
        top: int = 0,
        left: int = 0,
    ) -> None:
        """Draw a large surface where `mask [h,w]` holds and nothing nearer is drawn yet.

        Args:
            mask: `[h,w]`.
            colour: `[h,w,3]` float32.
            label: train id, or `[h,w]` of them.
            depth: float32, broadcast to `[h,w]`.
            top: row of the image that the arrays start at.
            left: column of the image that the arrays start at.
        """
        rows = slice(top, top + mask.shape[0])
        columns = slice(left, left + mask.shape[1])
        visible = mask & (depth < self.depth[rows, columns])
        np.copyto(self.colour[rows, columns], colour, where=visible[..., None])
        np.copyto(self.label[rows, columns], np.asarray(label, np.uint8), where=visible)
        np.copyto(self.depth[rows, columns], depth, where=visible)

    def polygon(self, corners: Sequence[Point], colour: Colour, label: int, depth: float, grain: float = 0.0) -> None:
        """Draw a convex polygon facing the camera.

        Args:
            corners: x, y in pixels, in order.
            colour: its light.
            label: train id, or 255.
            depth: metres; drawn over what is as far or farther.
            grain: strength of a fixed pixel pattern, so that no surface is perfectly flat.
        """
        box = self._box([x for x, _ in corners], [y for _, y in corners])
        if box is not None:
            self._paint(box, _inside(corners, box), colour, label, depth, grain)

    def ellipse(
        self, x: float, y: float, x_radius: float, y_radius: float, colour: Colour, label: int, depth: float
    ) -> None:
        """Draw an upright ellipse around x, y (pixels)."""
        box = self._box([x - x_radius, x + x_radius], [y - y_radius, y + y_radius])
        if box is not None and x_radius > 0 and y_radius > 0:
            self._paint(box, self.disc(box, x, y, x_radius, y_radius) < 1, colour, label, depth, 0.0)

    def shade_ground(self, x: float, y: float, x_radius: float, y_radius: float, strength: float) -> None:
        """Darken the ground inside a soft ellipse (pixels): 1 - strength of the light is left at its centre."""
        box = self._box([x - x_radius, x + x_radius], [y - y_radius, y + y_radius])
        if box is None or x_radius <= 0 or y_radius <= 0:
            return
        top, bottom, left, right = box
        inside = np.maximum(1 - self.disc(box, x, y, x_radius, y_radius), 0)
        light = 1 - np.float32(strength) * np.minimum(inside * 2, 1)
        light[~_IS_GROUND[self.label[top:bottom, left:right]]] = 1
        self.colour[top:bottom, left:right] *= light[..., None]

    @staticmethod
    def disc(box: tuple[int, int, int, int], x: float, y: float, x_radius: float, y_radius: float) -> Floats:
        """Squared distance from x, y in units of the radii for every pixel of `box`: `[h,w]` float32, 1 on the rim."""
        top, bottom, left, right = box
        across = ((np.arange(left, right) + 0.5 - x) / x_radius).astype(np.float32)
        down = ((np.arange(top, bottom) + 0.5 - y) / y_radius).astype(np.float32)
        squared: Floats = (across * across)[None, :] + (down * down)[:, None]
        return squared

    def blend(
        self, box: tuple[int, int, int, int], mask: NDArray[np.bool_], colour: Floats, label: int, depth: float
    ) -> None:
        """Draw `colour [h,w,3]` in `box` where `mask [h,w]` holds and nothing nearer is drawn yet."""
        top, bottom, left, right = box
        visible = mask & (self.depth[top:bottom, left:right] >= np.float32(depth))
        self.colour[top:bottom, left:right][visible] = colour[visible]
        self.label[top:bottom, left:right][visible] = label
        self.depth[top:bottom, left:right][visible] = depth

    def _box(self, xs: Sequence[float], ys: Sequence[float]) -> tuple[int, int, int, int] | None:
        """Top, bottom, left, right of the pixels that a shape may touch; None when it is outside the image."""
        left, right = max(0, int(min(xs)) - 1), min(self.width, int(max(xs)) + 2)
        top, bottom = max(0, int(min(ys)) - 1), min(self.height, int(max(ys)) + 2)
        return (top, bottom, left, right) if left < right and top < bottom else None

    def box(self, left: float, right: float, top: float, bottom: float) -> tuple[int, int, int, int] | None:
        """The pixels between these edges as top, bottom, left, right; None when there are none in the image."""
        return self._box([left, right], [top, bottom])

    def _paint(
        self,
        box: tuple[int, int, int, int],
        mask: NDArray[np.bool_],
        colour: Colour,
        label: int,
        depth: float,
        grain: float,
    ) -> None:
        top, bottom, left, right = box
        visible = mask & (self.depth[top:bottom, left:right] >= np.float32(depth))
        if grain:
            rows, columns = np.nonzero(visible)
            # a fixed hash of the position: cheap, and not a smooth texture that a network could read the class from
            pattern = ((rows * 73 + columns * 151 + (rows * columns) * 31) & 63).astype(np.float32)
            light = 1 + np.float32(grain) * (pattern / 64 - np.float32(0.5))
            self.colour[top:bottom, left:right][visible] = np.asarray(colour, np.float32) * light[:, None]
        else:
            self.colour[top:bottom, left:right][visible] = colour
        self.label[top:bottom, left:right][visible] = label
        self.depth[top:bottom, left:right][visible] = depth


def _inside(corners: Sequence[Point], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Which pixel centres of `box` a convex polygon covers, by exact whole-number edge functions."""
    top, bottom, left, right = box
    points = [(int(x * _ONE + 0.5 + 1e6) - 1_000_000, int(y * _ONE + 0.5 + 1e6) - 1_000_000) for x, y in corners]
    ring = list(zip(points, points[1:] + points[:1], strict=True))
    if sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in ring) < 0:
        ring = [(end, start) for start, end in ring]
    edges = np.asarray([(x0, y0, x1 - x0, y1 - y0) for (x0, y0), (x1, y1) in ring], np.int64)
    columns = np.arange(left, right) * _ONE + _ONE // 2
    rows = np.arange(top, bottom) * _ONE + _ONE // 2
    down = (rows - edges[:, 1:2]) * edges[:, 2:3]
    across = (columns - edges[:, 0:1]) * edges[:, 3:4]
    inside: NDArray[np.bool_] = np.all(down[:, :, None] >= across[:, None, :], axis=0)
    return inside
