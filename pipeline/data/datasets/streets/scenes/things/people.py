"""Pedestrians, standing and walking."""

from __future__ import annotations

from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.classes import PEDESTRIAN
from pipeline.data.datasets.streets.scenes.colours import colour_of, scaled, skin
from pipeline.data.datasets.streets.scenes.plan import Light
from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream


def draw_pedestrian(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A person whose feet are at x, z."""
    size = stream.uniform(0.92, 1.1) if stream.chance(0.88) else stream.uniform(0.62, 0.8)
    build = stream.uniform(1.0, 1.35)
    facing = stream.choice([-1.0, 1.0])
    stride = stream.uniform(0.05, 0.34) if stream.chance(0.75) else 0.04
    coat = scaled(colour_of(stream, "clothes"), light.front)
    trousers = scaled(colour_of(stream, "clothes"), light.front)
    face, hair = scaled(skin(stream), light.front), scaled(colour_of(stream, "clothes"), 0.5)
    hem = stream.weighted([(0.86, 0.55), (0.62, 0.25), (0.45, 0.2)])  # jacket, coat, long coat or skirt

    column, row = camera.point(x, 0, z)
    canvas.shade_ground(column, row, camera.focal * 0.5 * size / z, max(1.5, camera.focal * 0.12 / z), 0.45)

    def quad(corners: list[tuple[float, float]], colour: Colour) -> None:
        points = [camera.point(x + facing * across * build * size, up * size, z) for across, up in corners]
        canvas.polygon(points, colour, PEDESTRIAN, z)

    def round_part(across: float, up: float, x_radius: float, y_radius: float, colour: Colour) -> None:
        centre = camera.point(x + facing * across * build * size, up * size, z)
        canvas.ellipse(
            *centre, camera.focal * x_radius * size / z, camera.focal * y_radius * size / z, colour, PEDESTRIAN, z
        )

    for foot, tone in ((-stride, 0.8), (stride, 1.0)):
        leg = scaled(trousers, tone)
        quad([(foot * 0.25 - 0.11, 0.92), (foot * 0.25 + 0.11, 0.92), (foot + 0.075, 0.08), (foot - 0.075, 0.08)], leg)
        quad([(foot - 0.08, 0.1), (foot + 0.08, 0.1), (foot + 0.17, 0.0), (foot - 0.08, 0.0)], (0.08, 0.07, 0.07))
    if stream.chance(0.25):  # a backpack
        round_part(-0.24, 1.2, 0.13, 0.24, scaled(colour_of(stream, "clothes"), light.front))
    swing = stride * stream.uniform(0.5, 1.1)
    quad([(-0.08, 1.42), (0.04, 1.42), (swing + 0.05, 0.82), (swing - 0.05, 0.82)], scaled(coat, 0.75))
    flare = 0.16 + (0.86 - hem) * 0.22
    quad([(-0.22, 1.36), (-0.12, 1.45), (0.12, 1.45), (0.22, 1.36), (flare + 0.02, hem), (-flare - 0.02, hem)], coat)
    quad([(-0.07, 1.4), (0.07, 1.4), (-swing + 0.07, 0.82), (-swing - 0.05, 0.82)], scaled(coat, 0.86))
    round_part(-swing, 0.79, 0.05, 0.06, face)
    if stream.chance(0.2):  # a bag
        quad([(-swing - 0.14, 0.76), (-swing + 0.14, 0.76), (-swing + 0.16, 0.42), (-swing - 0.16, 0.42)], hair)
    quad([(-0.05, 1.5), (0.05, 1.5), (0.05, 1.4), (-0.05, 1.4)], scaled(face, 0.85))
    round_part(0.0, 1.62, 0.105, 0.14, hair)
    round_part(0.03, 1.585, 0.09, 0.115, face)
