"""Cars: a side, and the end that faces the camera."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas, Point
from pipeline.data.datasets.streets.scenes.classes import CAR
from pipeline.data.datasets.streets.scenes.colours import colour_of, mixed, scaled
from pipeline.data.datasets.streets.scenes.plan import Light
from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream

_TYRE: Colour = (0.07, 0.07, 0.075)

# Side views from the tail at 0 to the nose at 1 (share of the length): the cabin's foot and roof, and its height.
_SHAPES = {
    "sedan": (0.14, 0.76, 0.28, 0.56, 1.42),
    "hatchback": (0.03, 0.74, 0.1, 0.52, 1.48),
    "estate": (0.01, 0.76, 0.05, 0.55, 1.55),
    "van": (0.0, 0.93, 0.01, 0.76, 2.05),
}


class _Car:
    """The measures and colours of one car."""

    def __init__(self, stream: RandomStream, light: Light) -> None:
        self.shape = stream.weighted([("sedan", 0.32), ("hatchback", 0.3), ("estate", 0.23), ("van", 0.15)])
        foot_tail, foot_nose, roof_tail, roof_nose, roof = _SHAPES[self.shape]
        self.cabin = (foot_tail, foot_nose, roof_tail, roof_nose)
        self.roof = roof * stream.uniform(0.96, 1.06)
        self.belt = 0.86 if self.shape != "van" else 1.12
        self.nose = 0.76 if self.shape != "van" else 1.02
        self.lean = 0.78 if self.shape != "van" else 0.93  # the roof's width, as a share of the belt's
        self.length = stream.uniform(3.7, 4.9)
        self.width = stream.uniform(1.66, 1.88)
        self.nose_first = stream.chance(0.5)
        paint = colour_of(stream, "car")
        self.end_paint = scaled(paint, light.front)
        self.left_paint = scaled(paint, light.right)  # the car's left side faces left, like the walls on the right
        self.right_paint = scaled(paint, light.left)
        self.glass = mixed((0.1, 0.12, 0.14), light.horizon, stream.uniform(0.05, 0.45))
        self.plate = stream.choice([(0.8, 0.8, 0.76), (0.75, 0.62, 0.15)])
        self.taxi_sign = stream.chance(0.05)

    def half_width(self, y: float) -> float:
        """Half the width at height y: the cabin leans inwards."""
        up = max(0.0, (y - self.belt) / (self.roof - self.belt))
        return self.width / 2 * (1 - (1 - self.lean) * up)


def draw_car(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A car along the street whose near end is centred at x, z, seen from behind or from the front."""
    car = _Car(stream, light)
    _ground_shadow(canvas, camera, light, x, z + car.length / 2, car.width * 0.72, car.length * 0.62)

    def point(along: float, y: float, across: float) -> Point:
        """Pixels of a point of the car; across is -1 on its left face as seen from here, 1 on its right face."""
        share = 1 - along if car.nose_first else along
        return camera.point(x + across * car.half_width(y), y, z + share * car.length)

    _top(canvas, car, point, z)
    if abs(x) > car.width / 2:
        face = -1.0 if x > 0 else 1.0
        paint = car.left_paint if x > 0 else car.right_paint
        _side(canvas, car, lambda along, y: point(along, y, face), paint, z)
    _end(canvas, car, point, z)


def draw_crossing_car(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A car that crosses the street: its whole side faces the camera, starting at x."""
    car = _Car(stream, light)
    _ground_shadow(canvas, camera, light, x + car.length / 2, z + 0.8, car.length * 0.6, car.width * 0.8)

    def place(along: float, y: float) -> Point:
        share = 1 - along if car.nose_first else along
        return camera.point(x + share * car.length, y, z)

    _side(canvas, car, place, car.end_paint, z)


def _ground_shadow(
    canvas: Canvas, camera: Camera, light: Light, x: float, z: float, x_radius: float, z_radius: float
) -> None:
    near, far = camera.point(x, 0, max(z - z_radius, 1.0))[1], camera.point(x, 0, z + z_radius)[1]
    column = camera.point(x, 0, z)[0]
    strength = 0.35 + 0.3 * (1 - light.shadow)
    pixels = camera.focal * x_radius / z
    canvas.shade_ground(column, (near + far) / 2, pixels * 1.1, (near - far) / 2 + 1, strength)


def _top(canvas: Canvas, car: _Car, point: Callable[[float, float, float], Point], z: float) -> None:
    """Bonnet or boot, and the roof, as far as the camera looks down on them."""
    foot_tail, foot_nose, roof_tail, roof_nose = car.cabin
    near, foot, height = (1.0, foot_nose, car.nose) if car.nose_first else (0.0, foot_tail, car.belt)
    bright = scaled(car.end_paint, 1.12)
    lid = (point(near, height, -1), point(near, height, 1), point(foot, car.belt, 1), point(foot, car.belt, -1))
    canvas.polygon(lid, bright, CAR, z)
    ends = (roof_nose, roof_tail) if car.nose_first else (roof_tail, roof_nose)
    corners = [(ends[0], -1.0), (ends[0], 1.0), (ends[1], 1.0), (ends[1], -1.0)]
    canvas.polygon([point(along, car.roof, across) for along, across in corners], bright, CAR, z)


def _side(canvas: Canvas, car: _Car, place: Callable[[float, float], Point], paint: Colour, z: float) -> None:
    """The side of a car; `place(along, y)` maps the share of the length (tail 0, nose 1) and the height to pixels."""

    def shape(corners: list[tuple[float, float]], colour: Colour) -> None:
        canvas.polygon([place(along, y) for along, y in corners], colour, CAR, z)

    foot_tail, foot_nose, roof_tail, roof_nose = car.cabin
    shape([(0.0, 0.3), (1.0, 0.3), (1.0, car.nose), (foot_nose, car.belt), (0.0, car.belt)], paint)
    shape([(0.0, 0.3), (1.0, 0.3), (1.0, 0.42), (0.0, 0.42)], scaled(paint, 0.6))
    cabin = [(foot_tail, car.belt), (foot_nose, car.belt), (roof_nose, car.roof), (roof_tail, car.roof)]
    shape(cabin, scaled(paint, 0.9))
    low, high = car.belt + 0.02, car.roof - 0.09

    def cabin_edge(foot: float, roof: float, y: float) -> float:
        return foot + (roof - foot) * (y - car.belt) / (car.roof - car.belt)

    tail = [cabin_edge(foot_tail, roof_tail, y) + 0.025 for y in (low, high)]
    nose = [cabin_edge(foot_nose, roof_nose, y) - 0.025 for y in (low, high)]
    pillar = (roof_tail + roof_nose) / 2 + 0.02
    shape([(tail[0], low), (pillar - 0.015, low), (pillar - 0.015, high), (tail[1], high)], car.glass)
    shape([(pillar + 0.015, low), (nose[0], low), (nose[1], high), (pillar + 0.015, high)], car.glass)
    for along in (0.19, 0.8):
        hub, rim = place(along, 0.32), place(along + 0.32 / car.length, 0.32)
        top = place(along, 0.64)
        radii = max(abs(rim[0] - hub[0]), 0.5), max(hub[1] - top[1], 0.5)
        canvas.ellipse(*hub, *radii, _TYRE, CAR, z)
        canvas.ellipse(*hub, radii[0] * 0.55, radii[1] * 0.55, (0.4, 0.4, 0.41), CAR, z)


def _end(canvas: Canvas, car: _Car, point: Callable[[float, float, float], Point], z: float) -> None:
    """The tail or the nose of a car, facing the camera, and the window behind it."""
    foot_tail, foot_nose, roof_tail, roof_nose = car.cabin
    if car.nose_first:
        near, foot, roof, height, lamp = 1.0, foot_nose, roof_nose, car.nose, (0.9, 0.88, 0.78)
    else:
        near, foot, roof, height, lamp = 0.0, foot_tail, roof_tail, car.belt, (0.62, 0.06, 0.05)

    def pane(inset: float, low: float, high: float, colour: Colour) -> None:
        """Part of the slanted end of the cabin; low and high are shares of its height."""
        corners = [(low, -inset), (low, inset), (high, inset), (high, -inset)]
        placed = [
            point(foot + (roof - foot) * up, car.belt + (car.roof - car.belt) * up, across) for up, across in corners
        ]
        canvas.polygon(placed, colour, CAR, z)

    def box(left: float, right: float, low: float, high: float, colour: Colour) -> None:
        corners = [(left, low), (right, low), (right, high), (left, high)]
        canvas.polygon([point(near, y, across) for across, y in corners], colour, CAR, z)

    paint = car.end_paint
    pane(1.0, 0.0, 1.0, scaled(paint, 0.88))
    pane(0.87, 0.06, 0.84, car.glass)
    for part in (-0.84, 0.56):
        box(part, part + 0.28, 0.0, 0.4, _TYRE)
    box(-1.0, 1.0, 0.28, height, paint)
    box(-1.0, 1.0, 0.28, 0.45, scaled(paint, 0.55))
    for left in (-0.95, 0.6):
        box(left, left + 0.35, 0.55, 0.71, lamp)
    if car.nose_first:
        box(-0.5, 0.5, 0.5, 0.66, (0.08, 0.08, 0.09))  # the grille
    box(-0.28, 0.28, 0.4, 0.54, car.plate)
    if car.taxi_sign:
        corners = [(-0.2, car.roof), (0.2, car.roof), (0.2, car.roof + 0.16), (-0.2, car.roof + 0.16)]
        canvas.polygon([point(roof, y, across) for across, y in corners], (0.8, 0.7, 0.2), CAR, z)
