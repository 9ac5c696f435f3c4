"""One street: laid out, peopled, drawn and photographed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes.camera import Camera, place_camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.photograph import photograph
from pipeline.data.datasets.streets.scenes.plan import Light, Side, Street, plan_light, plan_street
from pipeline.data.datasets.streets.scenes.random_stream import RandomStream
from pipeline.data.datasets.streets.scenes.things.facades import draw_buildings, draw_fences
from pipeline.data.datasets.streets.scenes.things.furniture import draw_bonnet, draw_clutter, draw_pole, draw_sign
from pipeline.data.datasets.streets.scenes.things.people import draw_pedestrian
from pipeline.data.datasets.streets.scenes.things.plants import draw_bush, draw_tree
from pipeline.data.datasets.streets.scenes.things.surfaces import draw_backdrop, draw_ground, draw_sky
from pipeline.data.datasets.streets.scenes.things.vehicles import draw_car, draw_crossing_car

Draw = Callable[[Canvas, Camera, Light, RandomStream, float, float], None]

_NEAREST_CAR = 5.0
_NEAREST_PERSON = 4.0


def render_street(key: tuple[int, ...], height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render one street.

    Args:
        key: what the street follows from: whole numbers >= 0.
        height: pixels.
        width: pixels.

    Returns:
        The image `[H,W,3]` uint8 RGB and its label `[H,W]` uint8 train ids, 255 for void.
    """
    stream = RandomStream(*key)
    camera = place_camera(stream, height, width)
    street, light = plan_street(stream), plan_light(stream)
    canvas = Canvas(height, width)
    draw_sky(canvas, camera, light, stream)
    draw_backdrop(canvas, camera, light, stream)
    draw_ground(canvas, camera, street, light)
    for side in street.sides:
        draw_buildings(canvas, camera, side, light)
        draw_fences(canvas, camera, side, light)
    things = [*_traffic(stream, street), *_parked(stream, street)]
    for side in street.sides:
        things += _along(stream, side)
    things += _crowd(stream, street)
    for draw, x, z in sorted(things, key=lambda thing: -thing[2]):  # painted from far to near
        draw(canvas, camera, light, stream, x, z)
    if stream.chance(0.3):
        draw_bonnet(canvas, stream)
    return photograph(canvas, light, stream), canvas.label


def _depth(stream: RandomStream, near: float, far: float) -> float:
    """A distance between near and far, even in its inverse: things of all sizes in pixels are equally common."""
    return 1 / stream.uniform(1 / far, 1 / near)


def _traffic(stream: RandomStream, street: Street) -> list[tuple[Draw, float, float]]:
    """Cars on the road, and now and then one that crosses."""
    things: list[tuple[Draw, float, float]] = []
    width = street.left.kerb + street.right.kerb
    for lane in range(street.lanes):
        x = (lane + 0.5) * width / street.lanes - street.left.kerb
        z = _depth(stream, _NEAREST_CAR + 2.0, 90.0)
        for _ in range(stream.integer(0, 2)):
            things.append((draw_car, x + stream.uniform(-0.3, 0.3), z))
            z += stream.uniform(8.0, 40.0)
    opening = street.left.opening or street.right.opening
    if opening and stream.chance(0.5):
        things.append(
            (draw_crossing_car, stream.uniform(-street.left.kerb - 2, street.right.kerb - 1), sum(opening) / 2)
        )
    return things


def _parked(stream: RandomStream, street: Street) -> list[tuple[Draw, float, float]]:
    """Rows of parked cars at the kerbs."""
    things: list[tuple[Draw, float, float]] = []
    for side in street.sides:
        if side.kerb < 2.6 or not stream.chance(0.5):
            continue
        z = stream.uniform(_NEAREST_CAR, 22.0)
        for _ in range(stream.integer(1, 5)):
            if not _is_open(side, z, 5.0):
                things.append((draw_car, side.sign * (side.kerb - 1.05), z))
            z += stream.uniform(5.3, 9.0)
    return things


def _along(stream: RandomStream, side: Side) -> list[tuple[Draw, float, float]]:
    """What stands beside the road: lamps, signs, trees, bushes, clutter."""
    things: list[tuple[Draw, float, float]] = []

    def stand(draw: Draw, offset: float, z: float) -> None:
        if not _is_open(side, z, 0.0):
            things.append((draw, side.sign * offset, z))

    edge = side.kerb + 0.45
    z = stream.uniform(5.0, 14.0)
    spacing = stream.uniform(9.0, 24.0)
    for _ in range(stream.integer(0, 4)):
        stand(draw_pole, edge, z)
        z += spacing
    for _ in range(stream.integer(0, 3)):
        stand(draw_sign, edge + stream.uniform(0.0, 0.6), _depth(stream, 5.5, 18.0))
    if stream.chance(0.45):  # a row of trees in the sidewalk or behind it
        offset = edge + 0.3 if stream.chance(0.5) else side.sidewalk + 0.8
        z = stream.uniform(7.0, 20.0)
        spacing = stream.uniform(6.0, 14.0)
        for _ in range(stream.integer(1, 6)):
            stand(draw_tree, offset, z)
            z += spacing
    if not side.buildings:
        for _ in range(stream.integer(5, 11)):
            stand(draw_tree, side.facade + stream.uniform(0.0, 14.0), _depth(stream, 9.0, 70.0))
    if side.facade > side.sidewalk:
        for _ in range(stream.integer(0, 6)):
            stand(draw_bush, stream.uniform(side.sidewalk + 0.6, side.facade + 0.3), _depth(stream, 5.0, 40.0))
    if stream.chance(0.4):
        stand(draw_clutter, stream.uniform(side.verge + 0.3, side.sidewalk - 0.2), _depth(stream, 6.0, 25.0))
    return things


def _crowd(stream: RandomStream, street: Street) -> list[tuple[Draw, float, float]]:
    """People on the sidewalks, alone and in groups, and on the crossing."""
    things: list[tuple[Draw, float, float]] = []
    for side in street.sides:
        for _ in range(stream.integer(1, 5)):
            z = _depth(stream, _NEAREST_PERSON, 15.0)
            offset = stream.uniform(side.verge + 0.4, side.sidewalk - 0.3)
            members = stream.weighted([(1, 0.7), (2, 0.22), (3, 0.08)])
            things += [
                (draw_pedestrian, side.sign * (offset + 0.55 * member), z + stream.uniform(0.0, 0.4))
                for member in range(members)
            ]
    z = street.zebra + 1.6 if street.zebra is not None else _depth(stream, 6.0, 20.0)
    if stream.chance(0.7 if street.zebra is not None else 0.3):
        for _ in range(stream.integer(1, 3)):
            x = stream.uniform(-street.left.kerb, street.right.kerb)
            things.append((draw_pedestrian, x, max(z + stream.uniform(-1.0, 1.0), _NEAREST_PERSON)))
    return things


def _is_open(side: Side, z: float, before: float) -> bool:
    """Whether z (or up to `before` metres nearer) lies in the mouth of a side street."""
    return side.opening is not None and side.opening[0] - before < z < side.opening[1]
