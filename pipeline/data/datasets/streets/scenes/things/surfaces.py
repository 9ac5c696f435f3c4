"""Sky, backdrop and ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes import noise
from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.classes import BUILDING, ROAD, SIDEWALK, SKY, TERRAIN, VEGETATION
from pipeline.data.datasets.streets.scenes.colours import colour_of, mixed
from pipeline.data.datasets.streets.scenes.noise import Floats
from pipeline.data.datasets.streets.scenes.plan import END, Light, Side, Street
from pipeline.data.datasets.streets.scenes.random_stream import RandomStream

Mask = NDArray[np.bool_]

_SOIL, _MARKING, _KERB = 2, 3, 4  # what the ground is made of, beside road (0) and sidewalk (1)


def draw_sky(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream) -> None:
    """A gradient from the horizon up, with clouds."""
    clouds = noise.bank()[2]
    bottom = camera.horizon_rows[1]
    up = np.minimum(np.maximum(-camera.rows_below_horizon[:bottom] / np.float32(0.6 * canvas.height), 0), 1)
    pattern = noise.window(clouds, bottom, canvas.width, 150.0 / canvas.width, stream.integer(0, 255))
    share = np.minimum(np.maximum((pattern - np.float32(0.8 - 0.6 * light.cover)) * 3, 0), np.float32(0.9))
    bright = np.float32(0.8) + np.float32(0.4) * pattern
    for channel in range(3):
        clear = np.float32(light.horizon[channel]) + np.float32(light.sky[channel] - light.horizon[channel]) * up
        canvas.colour[:bottom, :, channel] = clear + share * (np.float32(light.clouds[channel]) * bright - clear)
    canvas.label[:bottom] = SKY


def draw_backdrop(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream) -> None:
    """What closes the street at its end: a skyline of far buildings or trees."""
    grain, clouds = noise.bank()[1:]
    metres = camera.columns * np.float32(END / camera.focal)  # at the far end
    tallest = camera.point(0.0, 24.0, END)[1] - abs(camera.roll) * canvas.width
    bottom = camera.horizon_rows[1]
    top = max(0, min(int(tallest), bottom))
    height = camera.height - camera.rows_below_horizon[top:bottom] * np.float32(END / camera.focal)
    far = np.full((1, 1), END, np.float32)
    shift = stream.integer(0, 255)
    if stream.chance(0.55):  # trees in front of or instead of houses
        tree_line = 3.0 + 13.0 * noise.look_up(clouds, metres, np.zeros_like(metres), 1.3, shift)
        leaves = noise.look_up(grain, np.broadcast_to(metres[None, :], height.shape), height, 3.0, shift)
        shade = np.float32(light.front) * (np.float32(0.55) + np.float32(0.7) * leaves)
        paint = shade[..., None] * np.asarray(colour_of(stream, "vegetation"), np.float32)
        canvas.surface(height < tree_line[None, :] + 2 * leaves, paint, VEGETATION, far, top=top)
    if stream.chance(0.8):
        blocks = np.floor(metres / np.float32(stream.uniform(12.0, 26.0))).astype(np.int32) + 1000
        skyline = (5.0 + 18.0 * np.asarray([stream.uniform() for _ in range(16)], np.float32))[(blocks * 5) & 15]
        tint = np.asarray([colour_of(stream, "building") for _ in range(16)], np.float32)[(blocks * 7) & 15]
        lit = (metres[None, :] * np.float32(0.31) % 1 < 0.5) & (height * np.float32(0.33) % 1 < 0.5)
        shade = np.where(lit, np.float32(0.72), np.float32(1.0)) * np.float32(light.front)
        canvas.surface(height < skyline[None, :], shade[..., None] * tint[None], BUILDING, far + 1, top=top)


def draw_ground(canvas: Canvas, camera: Camera, street: Street, light: Light) -> None:
    """Road with its markings, sidewalks with kerb and slabs, grass or earth beyond them, and the houses' shadows."""
    white, grain, clouds = noise.bank()
    top = camera.horizon_rows[0]
    below = camera.rows_below_horizon[top:]
    on_ground = below > np.float32(0.3)
    z: Floats = np.divide(np.float32(camera.focal * camera.height), np.maximum(below, np.float32(0.3)))
    x = camera.columns[None, :] * z / np.float32(camera.focal)
    left = np.broadcast_to(camera.columns[None, :] < 0, x.shape)
    side_x = np.abs(x)

    kerb = np.where(left, np.float32(street.left.kerb), np.float32(street.right.kerb))
    verge = np.where(left, np.float32(street.left.verge), np.float32(street.right.verge))
    pave = np.where(left, np.float32(street.left.sidewalk), np.float32(street.right.sidewalk))
    crossing = (_in_opening(street.left, z) & left) | (_in_opening(street.right, z) & ~left)
    road = (side_x < kerb) | crossing
    curb = ~road & (side_x < kerb + np.float32(0.22))  # the kerb stones belong to the sidewalk, strip of grass or not
    sidewalk = curb | (~road & (side_x >= verge) & (side_x < pave))
    label = np.where(road, np.uint8(ROAD), np.where(sidewalk, np.uint8(SIDEWALK), np.uint8(TERRAIN)))

    wide_x = np.minimum(np.maximum(x, -500), 500)  # noise has an end; nobody looks at grass half a kilometre away
    soft = noise.look_up(grain, wide_x, z, 11.0, street.shift)
    fine = noise.look_up(white, wide_x, z, 24.0, street.shift)
    broad = noise.look_up(clouds, wide_x, z, 9.0, street.shift)
    near = 1 - np.minimum(z / 25, 1)  # fine grain averages out with the distance
    bright = 1 + (fine - np.float32(0.5)) * (np.float32(0.3) * near) + (soft - np.float32(0.5)) * np.float32(0.12)
    bright += (broad - np.float32(0.5)) * np.float32(0.36)
    joint = np.float32(0.035) * (1 + z / 6)  # a joint is at least a fraction of a pixel wide
    size = np.float32(street.slab)
    joints = ((wide_x % size < joint) | (z % size < joint)) & sidewalk & (z < 22)
    bright = np.where(joints, bright * np.float32(0.78), bright)
    bright = np.where(label == TERRAIN, np.float32(0.6) + np.float32(0.8) * soft, bright)
    bright *= _shadow(street, light, x) * np.float32(light.ground)

    material = np.where(label == TERRAIN, np.uint8(_SOIL), label)
    material[curb] = _KERB
    painted = road & ~crossing & (soft < np.float32(0.82)) & _markings(street, x, z, kerb)
    material[painted] = _MARKING
    pale = mixed(street.pavement, (0.7, 0.7, 0.68), 0.6)
    paints = np.asarray([street.road, street.pavement, street.soil, street.marking, pale], np.float32)
    canvas.surface(on_ground, paints[material] * bright[..., None], label, z, top=top)


def _in_opening(side: Side, z: Floats) -> Mask:
    if side.opening is None:
        return np.zeros(z.shape, np.bool_)
    return (z > np.float32(side.opening[0])) & (z < np.float32(side.opening[1]))


def _shadow(street: Street, light: Light, x: Floats) -> Floats:
    """Light left after the houses' shadows, with a soft edge."""
    if light.shadow_left + light.shadow_right == 0:
        return np.ones((1, 1), np.float32)
    left = np.float32(light.shadow_left - street.left.facade) - x
    right = np.float32(light.shadow_right - street.right.facade) + x
    dark = np.minimum(np.maximum(np.maximum(left, right) * 3, 0), 1)
    shadow: Floats = 1 - np.float32(1 - light.shadow) * dark
    return shadow


def _markings(street: Street, x: Floats, z: Floats, kerb: Floats) -> Mask:
    """Where the road is painted: lane lines, edge lines, a zebra crossing."""
    half = np.float32(0.07) * (1 + z / 30)
    width = street.left.kerb + street.right.kerb
    dashes = z % 6 < 3 if street.dashed else True
    marked = np.zeros(x.shape, np.bool_)
    for lane in range(1, street.lanes):
        marked |= (np.abs(x - np.float32(width * lane / street.lanes - street.left.kerb)) < half) & dashes
    if street.edge_lines:
        marked |= np.abs(np.abs(x) - kerb + np.float32(0.35)) < half
    if street.zebra is not None:
        across = (z > np.float32(street.zebra)) & (z < np.float32(street.zebra + 3.2))
        marked = np.where(across, (x + 20) % np.float32(1.0) < np.float32(0.5), marked)
    return marked
