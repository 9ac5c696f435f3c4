"""Trees, bushes and hedges."""

from __future__ import annotations

import numpy as np

from pipeline.data.datasets.streets.scenes import noise
from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.classes import VEGETATION
from pipeline.data.datasets.streets.scenes.colours import colour_of, scaled
from pipeline.data.datasets.streets.scenes.plan import Light
from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream

Disc = tuple[float, float, float]
"""x, y, radius in metres, x from the plant's foot."""


def draw_tree(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A tree at x, z: a trunk and a crown of leaves; trunk and crown are both vegetation."""
    height = stream.uniform(4.5, 9.5)
    spread = height * stream.uniform(0.2, 0.3)
    bare = height * stream.uniform(0.28, 0.4)
    bark: Colour = stream.choice([(0.24, 0.18, 0.13), (0.32, 0.27, 0.22), (0.42, 0.4, 0.37)])
    column, row = camera.point(x, 0, z)
    pixels = camera.focal / z
    canvas.shade_ground(column, row, pixels * spread * 1.2, max(1.5, pixels * 0.35), 0.5 * (1.2 - light.shadow))
    half = max(height * stream.uniform(0.012, 0.022), 0.6 * z / camera.focal)
    trunk = ((-half * 1.3, 0.0), (half * 1.3, 0.0), (half * 0.8, bare + 1.0), (-half * 0.8, bare + 1.0))
    canvas.polygon(
        [camera.point(x + a, b, z) for a, b in trunk], scaled(bark, light.front * 0.9), VEGETATION, z, grain=0.5
    )
    middle = (bare + height) / 2
    if stream.chance(0.2):  # a conifer: discs that shrink upwards
        steps = 5
        discs = [
            (0.0, bare * 0.5 + (height - bare * 0.5) * step / steps, spread * (1.15 - 0.95 * step / steps))
            for step in range(steps + 1)
        ]
    else:
        discs = [(0.0, middle, (height - bare) * 0.42)]
        discs += [
            (
                stream.uniform(-1.0, 1.0) * spread,
                middle + stream.uniform(-0.6, 0.75) * (height - bare) * 0.5,
                spread * stream.uniform(0.45, 0.8),
            )
            for _ in range(stream.integer(4, 7))
        ]
    _leaves(canvas, camera, light, stream, x, z, discs)


def draw_bush(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A bush or a piece of hedge at x, z."""
    size = stream.uniform(0.4, 1.0)
    column, row = camera.point(x, 0, z)
    canvas.shade_ground(column, row, camera.focal * size * 2 / z, max(1.5, camera.focal * 0.2 / z), 0.4)
    discs = [
        (stream.uniform(-1.3, 1.3) * size, stream.uniform(0.3, 0.8) * size, size * stream.uniform(0.5, 0.8))
        for _ in range(stream.integer(3, 6))
    ]
    _leaves(canvas, camera, light, stream, x, z, discs)


def _leaves(
    canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float, discs: list[Disc]
) -> None:
    """A crown: discs with a ragged rim, lit from above."""
    pixels = camera.focal / z
    placed = [(*camera.point(x + across, up, z), radius * pixels) for across, up, radius in discs]
    ground = camera.point(x, 0, z)[1]
    box = canvas.box(
        min(column - 1.2 * radius for column, _, radius in placed),
        max(column + 1.2 * radius for column, _, radius in placed),
        min(row - 1.2 * radius for _, row, radius in placed),
        min(max(row + 1.2 * radius for _, row, radius in placed), ground),
    )
    if box is None:
        return
    top, bottom, left, right = box
    grain, clouds = noise.bank()[1:]
    shift = stream.integer(0, 255)
    step = 11.0 / pixels  # entries per pixel: leaves have a size in metres
    leaf = noise.window(grain, bottom - top, right - left, min(step, 8.0), shift)
    clump = noise.window(clouds, bottom - top, right - left, min(step * 2.5, 20.0), shift + 57)
    field = np.full((bottom - top, right - left), 9, np.float32)
    lit = np.zeros_like(field)
    for column, row, radius in placed:
        squared = canvas.disc(box, column, row, radius, radius)
        nearer = squared < field
        field = np.where(nearer, squared, field)
        height = ((row - np.arange(top, bottom) - 0.5) / radius).astype(np.float32)
        lit = np.where(nearer, height[:, None], lit)
    mask = field + (leaf - np.float32(0.5)) * np.float32(0.9) < 1
    tone = colour_of(stream, "vegetation")
    shade = np.float32(light.front) * (np.float32(0.62) + np.float32(0.22) * lit)
    shade = shade * (np.float32(0.35) + np.float32(0.75) * leaf + np.float32(0.5) * clump)
    paint = np.maximum(shade, np.float32(0.08))[..., None] * np.asarray(tone, np.float32)
    canvas.blend(box, mask, paint, VEGETATION, z)
