"""A pinhole camera above a flat street: metres <-> pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.data.datasets.streets.scenes.canvas import Point
from pipeline.data.datasets.streets.scenes.noise import Floats
from pipeline.data.datasets.streets.scenes.random_stream import RandomStream


@dataclass(frozen=True)
class Camera:
    """Where the camera stands. Metres: x to the right, y up from the ground, z along the street; camera at x = z = 0.

    Attributes:
        height_px: image height.
        width_px: image width.
        focal: focal length in pixels.
        x_horizon: column of the street's vanishing point.
        y_horizon: row of the horizon at that column.
        roll: rows that the horizon falls per column to the right.
        height: metres above the ground.
    """

    height_px: int
    width_px: int
    focal: float
    x_horizon: float
    y_horizon: float
    roll: float
    height: float

    def point(self, x: float, y: float, z: float) -> Point:
        """Column and row of the point x, y, z (z above 0)."""
        column = self.x_horizon + self.focal * x / z
        return column, self.y_horizon + self.roll * (column - self.x_horizon) + self.focal * (self.height - y) / z

    @cached_property
    def columns(self) -> Floats:
        """`[W]`: columns relative to the vanishing point, in pixels."""
        return (np.arange(self.width_px) + 0.5 - self.x_horizon).astype(np.float32)

    @cached_property
    def rows_below_horizon(self) -> Floats:
        """`[H,W]`: rows below the horizon (negative above it), in pixels."""
        rows = (np.arange(self.height_px) + 0.5 - self.y_horizon).astype(np.float32)
        tilted: Floats = rows[:, None] - np.float32(self.roll) * self.columns[None, :]
        return tilted

    @cached_property
    def horizon_rows(self) -> tuple[int, int]:
        """The first row with ground in it, and the first row with nothing but ground."""
        at_edges = [self.y_horizon + self.roll * float(self.columns[end]) for end in (0, -1)]
        first, last = (min(max(int(row), 0), self.height_px) for row in (min(at_edges), max(at_edges) + 2))
        return first, last


def place_camera(stream: RandomStream, height_px: int, width_px: int) -> Camera:
    """A camera as on a car, a bicycle or a tripod."""
    return Camera(
        height_px=height_px,
        width_px=width_px,
        focal=width_px * stream.uniform(0.7, 1.0),
        x_horizon=width_px * stream.uniform(0.3, 0.7),
        y_horizon=height_px * stream.uniform(0.34, 0.5),
        roll=stream.uniform(-0.035, 0.035),
        height=stream.uniform(1.25, 2.3),
    )
