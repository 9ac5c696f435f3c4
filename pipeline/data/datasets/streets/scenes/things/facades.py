"""Walls along the street: rows of buildings, and fences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes import noise
from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.classes import BUILDING, FENCE
from pipeline.data.datasets.streets.scenes.noise import Floats
from pipeline.data.datasets.streets.scenes.plan import END, Building, Light, Side

_CLOSEST = 0.8  # metres; columns that see a wall nearer than this see it at this distance

_WALL, _FRAME, _GLASS = range(3)


def draw_buildings(canvas: Canvas, camera: Camera, side: Side, light: Light) -> None:
    """The row of buildings of one side: their street fronts, and through the gaps the walls facing the camera."""
    span = _columns_of(camera, side)
    if not side.buildings or span.start >= span.stop:
        return
    outward, z = _plane(camera, side, side.facade, span)
    starts = np.asarray([building.start for building in side.buildings], np.float32)
    ends = np.asarray([building.end for building in side.buildings], np.float32)
    index = np.searchsorted(starts, z, side="right") - 1
    gap = (index < 0) | (z >= ends[np.maximum(index, 0)])
    index = np.where(gap, index + 1, index)
    seen = (index < len(starts)) & (z < np.float32(END))
    index = np.minimum(index, len(starts) - 1)
    plane = np.where(gap, np.maximum(starts[index], np.float32(_CLOSEST)), z)  # in a gap: the next building's near wall
    across = np.where(gap, outward * plane / np.float32(camera.focal) - np.float32(side.facade), z - starts[index])
    rows = slice(0, canvas.height)
    height = _heights(camera, plane, rows, span)
    walls = np.asarray([building.height for building in side.buildings], np.float32)[index]
    mask = seen[None, :] & (height >= 0) & (height < walls[None, :])
    used = np.flatnonzero(mask.any(axis=1))
    if not len(used):
        return
    rows = slice(int(used[0]), int(used[-1]) + 1)
    material, bright = _fronts(side.buildings, index, np.maximum(across, 0), height[rows], gap)
    bright *= np.where(gap, np.float32(light.front), np.float32(light.left if side.sign < 0 else light.right))[None, :]
    colours = np.asarray([(building.wall, building.frame, building.glass) for building in side.buildings], np.float32)
    paint = colours[index[None, :], material] * bright[..., None]
    canvas.surface(mask[rows], paint, BUILDING, plane[None, :], top=rows.start, left=span.start)


def _fronts(
    buildings: tuple[Building, ...], index: NDArray[np.intp], across: Floats, height: Floats, gap: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], Floats]:
    """What the walls are made of and how bright it is.

    Args:
        buildings: the row.
        index: `[w]`, the building that each column shows.
        across: `[w]`, metres from the building's corner.
        height: `[h,w]`, metres above the ground.
        gap: `[w]`, columns that show a wall facing the camera instead of the street front.

    Returns:
        Material `[h,w]` (wall, frame or glass) and brightness `[h,w]`.
    """

    def per_column(values: list[float]) -> Floats:
        return np.asarray(values, np.float32)[index][None, :]

    white, grain, clouds = noise.bank()
    u = (across + np.asarray([building.shift for building in buildings], np.float32)[index])[None, :]
    bright = np.float32(0.78) + np.float32(0.32) * noise.look_up(clouds, u, height, 11.0)
    bright += np.float32(0.14) * noise.look_up(grain, u, height, 14.0)

    course = height * np.float32(3.2)
    row = course.astype(np.int32)  # truncation: rows below the ground are not seen
    brick = ((across[None, :] + (row & 1) * np.float32(0.3)) * np.float32(1.7)).astype(np.int32)
    tone = np.float32(0.86) + np.float32(0.28) * white[(row * 37) & 255, (brick * 11 + 5) & 255]
    tone = np.where(course - row < np.float32(0.16), np.float32(0.82), tone)
    bricks = per_column([float(building.bricks) for building in buildings])
    bright *= 1 + bricks * (tone - 1)
    top = per_column([building.height for building in buildings])
    bright = np.where(height > top - np.float32(0.45), bright * np.float32(0.72), bright)  # the cornice

    level = height / per_column([building.storey for building in buildings])
    along = (across[None, :] / per_column([building.bay for building in buildings])).astype(np.float32)
    floor, bay = level.astype(np.int32), along.astype(np.int32)
    sill, off_centre = level - floor, np.abs(along - bay - np.float32(0.5)) * 2
    shop_front = (floor == 0) & (per_column([float(building.shop) for building in buildings]) > 0) & ~gap[None, :]
    narrow = off_centre < per_column([building.opening for building in buildings])
    window = (sill > np.float32(0.28)) & (sill < np.float32(0.8)) & narrow & ~((floor == 0) & gap[None, :])
    shop_window = (sill > np.float32(0.14)) & (sill < np.float32(0.74)) & (off_centre < np.float32(0.86))
    window = np.where(shop_front, shop_window, window) & (height < top - np.float32(0.6))
    pane = white[(floor * 53) & 255, (bay * 29 + 3) & 255]
    glazing = np.float32(0.45) + np.float32(1.1) * pane + np.float32(0.3) * sill
    band = shop_front & (sill >= np.float32(0.76))
    bright = np.where(shop_front, bright * np.where(band, np.float32(1.15), np.float32(0.8)), bright)
    material = np.where(window, _GLASS, np.where(shop_front, _FRAME, _WALL))
    return material, np.where(window, glazing, bright)


def draw_fences(canvas: Canvas, camera: Camera, side: Side, light: Light) -> None:
    """The fences of one side."""
    grain = noise.bank()[1]
    for number, fence in enumerate(side.fences):
        span = _columns_of(camera, side)
        _, z = _plane(camera, side, fence.offset, span)
        used = np.flatnonzero((z > np.float32(fence.start)) & (z < np.float32(fence.end)))
        if not len(used):
            continue
        span = slice(span.start + int(used[0]), span.start + int(used[-1]) + 1)
        z = z[used[0] : used[-1] + 1]
        rows = slice(camera.horizon_rows[0] // 2, canvas.height)
        height = _heights(camera, z, rows, span)
        board = height if fence.rails else z[None, :]
        board = board / np.float32(fence.pitch)
        gap = board - np.floor(board) < np.float32(0.22)
        post = (z % 2 < np.float32(0.14))[None, :]
        shade = np.float32(0.75) + np.float32(0.4) * noise.look_up(grain, z[None, :], height, 7.0, 11 * number)
        shade = np.where(gap & ~post, shade * np.float32(0.5), shade)
        paint = shade[..., None] * np.asarray(fence.colour, np.float32)
        paint *= np.float32(light.left if side.sign < 0 else light.right)
        mask = (height >= 0) & (height < np.float32(fence.height))
        canvas.surface(mask, paint, FENCE, z[None, :], top=rows.start, left=span.start)


def _columns_of(camera: Camera, side: Side) -> slice:
    """The columns on this side of the vanishing point, half a pixel off it."""
    outward = camera.columns * side.sign > np.float32(0.5)
    used = np.flatnonzero(outward)
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)


def _plane(camera: Camera, side: Side, offset: float, span: slice) -> tuple[Floats, Floats]:
    """Pixels outwards from the vanishing point, and z of the upright plane `offset` metres beside the camera."""
    outward = camera.columns[span] * side.sign
    return outward, np.maximum(np.float32(camera.focal * offset) / outward, np.float32(_CLOSEST))


def _heights(camera: Camera, z: Floats, rows: slice, span: slice) -> Floats:
    """Metres above the ground, `[h,w]`, of what is seen at depth `z [w]`, within what noise can be looked up at."""
    height = np.float32(camera.height) - camera.rows_below_horizon[rows, span] * (z / np.float32(camera.focal))[None, :]
    return np.minimum(np.maximum(height, -200), 400)
