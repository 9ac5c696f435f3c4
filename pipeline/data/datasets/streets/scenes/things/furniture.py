"""Poles, signs and traffic lights, and things that belong to no class."""

from __future__ import annotations

from pipeline.data.datasets.streets.scenes.camera import Camera
from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.classes import POLE, SIGN, VOID
from pipeline.data.datasets.streets.scenes.colours import colour_of, scaled
from pipeline.data.datasets.streets.scenes.plan import Light
from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream

_WHITE: Colour = (0.88, 0.88, 0.86)
_BLACK: Colour = (0.07, 0.07, 0.07)
_LAMPS: tuple[Colour, ...] = ((0.95, 0.15, 0.1), (0.95, 0.65, 0.1), (0.15, 0.85, 0.4))

_SIGN_KINDS = (
    *(("disc", 0.28), ("triangle", 0.14), ("yield", 0.08), ("diamond", 0.08)),
    *(("square", 0.16), ("octagon", 0.08), ("board", 0.18)),
)

# Corners of a plate on the unit circle or square; an octagon's 0.4142 is tan(22.5 degrees).
_PLATES: dict[str, tuple[tuple[float, float], ...]] = {
    "triangle": ((0.0, 1.0), (0.95, -0.7), (-0.95, -0.7)),
    "yield": ((0.0, -1.0), (0.95, 0.7), (-0.95, 0.7)),
    "diamond": ((0.0, 1.0), (1.0, 0.0), (0.0, -1.0), (-1.0, 0.0)),
    "square": ((-0.8, 0.8), (0.8, 0.8), (0.8, -0.8), (-0.8, -0.8)),
    "octagon": (
        *((-0.4142, 1.0), (0.4142, 1.0), (1.0, 0.4142), (1.0, -0.4142)),
        *((0.4142, -1.0), (-0.4142, -1.0), (-1.0, -0.4142), (-1.0, 0.4142)),
    ),
    "board": ((-1.7, 0.62), (1.7, 0.62), (1.7, -0.62), (-1.7, -0.62)),
}


def draw_pole(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A street lamp, a bare pole, or a pole with traffic lights, standing at x, z; its arm reaches over the road."""
    colour = scaled(colour_of(stream, "pole"), light.front)
    kind = stream.weighted([("lamp", 0.5), ("lights", 0.28), ("bare", 0.22)])
    top = stream.uniform(4.5, 7.5) if kind != "lights" else stream.uniform(3.0, 3.8)
    thick = stream.uniform(0.1, 0.16)
    _foot_shadow(canvas, camera, x, z)
    _shaft(canvas, camera, x, 0, top, z, thick, colour)
    inward = -1.0 if x > 0 else 1.0
    if kind == "lamp":
        reach = x + inward * stream.uniform(0.8, 2.2)
        _beam(canvas, camera, x, reach, top, z, thick * 0.8, colour)
        _beam(canvas, camera, reach - 0.35, reach + 0.35, top - 0.06, z, thick * 1.3, scaled(colour, 1.25))
    elif kind == "lights":
        _traffic_lights(canvas, camera, stream, x + inward * 0.12, top, z)
        if stream.chance(0.4):
            _beam(canvas, camera, x, x + inward * 3.4, top + 1.6, z, thick, colour)
            _shaft(canvas, camera, x, top, top + 1.6, z, thick, colour)
            _traffic_lights(canvas, camera, stream, x + inward * 3.3, top + 1.75, z)


def draw_sign(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A traffic sign on its post, standing at x, z."""
    kinds = [
        ("disc", 0.28),
        ("triangle", 0.14),
        ("yield", 0.08),
        ("diamond", 0.08),
        ("square", 0.16),
        ("octagon", 0.08),
    ]
    kind = stream.weighted([*kinds, ("board", 0.18)])
    radius = stream.uniform(0.42, 0.62)
    height = stream.uniform(2.0, 2.9)
    _foot_shadow(canvas, camera, x, z)
    for post in (x - radius, x + radius) if kind == "board" else (x,):
        _shaft(canvas, camera, post, 0, height, z, 0.055, scaled(colour_of(stream, "pole"), light.front))
    outer = scaled(colour_of(stream, "sign"), light.front)
    inner = scaled(_WHITE if stream.chance(0.6) else colour_of(stream, "sign"), light.front)
    _plate(canvas, camera, kind, x, height, z, radius, outer)
    _plate(canvas, camera, kind, x, height, z, radius * stream.uniform(0.6, 0.85), inner)
    symbol = scaled(stream.choice([_BLACK, _WHITE, outer]), light.front)
    for _ in range(stream.integer(1, 3)):
        left, up = stream.uniform(-0.4, 0.1) * radius, stream.uniform(-0.4, 0.3) * radius
        width, depth = stream.uniform(0.15, 0.5) * radius, stream.uniform(0.1, 0.35) * radius
        corners = ((left, up), (left + width, up), (left + width, up + depth), (left, up + depth))
        canvas.polygon([camera.point(x + a, height + b, z) for a, b in corners], symbol, SIGN, z)


def draw_clutter(canvas: Canvas, camera: Camera, light: Light, stream: RandomStream, x: float, z: float) -> None:
    """A bin, a box or a bench: things that belong to no class and are void in the label."""
    colour = scaled(colour_of(stream, "clutter"), light.front)
    width, height = stream.weighted([((0.3, 1.0), 0.5), ((0.55, 1.2), 0.3), ((0.9, 0.5), 0.2)])
    _foot_shadow(canvas, camera, x, z, width)
    body = ((-width, 0.0), (width, 0.0), (width * 1.05, height), (-width * 1.05, height))
    canvas.polygon([camera.point(x + a, b, z) for a, b in body], colour, VOID, z)
    lid = ((-width * 1.1, height), (width * 1.1, height), (width * 1.1, height - 0.14), (-width * 1.1, height - 0.14))
    canvas.polygon([camera.point(x + a, b, z) for a, b in lid], scaled(colour, 0.7), VOID, z)


def draw_bonnet(canvas: Canvas, stream: RandomStream) -> None:
    """The bonnet of the car that carries the camera, at the bottom edge: void, as in Cityscapes."""
    height, width = canvas.height, canvas.width
    colour = scaled(colour_of(stream, "car"), stream.uniform(0.5, 1.0))
    rise = height * stream.uniform(0.05, 0.11)
    canvas.ellipse(width * stream.uniform(0.45, 0.55), float(height), width * 0.62, rise, colour, VOID, 0.0)
    canvas.ellipse(width * 0.5, float(height), width * 0.45, rise * 0.55, scaled(colour, 1.2), VOID, 0.0)


def _shaft(
    canvas: Canvas, camera: Camera, x: float, low: float, high: float, z: float, half: float, colour: Colour
) -> None:
    """An upright pole, at least a pixel and a half wide, with a lit and a dark half."""
    half = max(half, 0.75 * z / camera.focal)
    corners = ((-half * 1.15, low), (half * 1.15, low), (half * 0.85, high), (-half * 0.85, high))
    canvas.polygon([camera.point(x + a, b, z) for a, b in corners], colour, POLE, z)
    lit = ((-half * 0.6, low), (0.0, low), (0.0, high), (-half * 0.5, high))
    canvas.polygon([camera.point(x + a, b, z) for a, b in lit], scaled(colour, 1.3), POLE, z)


def _beam(
    canvas: Canvas, camera: Camera, start: float, end: float, y: float, z: float, half: float, colour: Colour
) -> None:
    half = max(half, 0.75 * z / camera.focal)
    corners = ((start, y - half), (end, y - half), (end, y + half), (start, y + half))
    canvas.polygon([camera.point(a, b, z) for a, b in corners], colour, POLE, z)


def _traffic_lights(canvas: Canvas, camera: Camera, stream: RandomStream, x: float, top: float, z: float) -> None:
    case = ((-0.19, top), (0.19, top), (0.19, top - 0.98), (-0.19, top - 0.98))
    canvas.polygon([camera.point(x + a, b, z) for a, b in case], stream.choice([_BLACK, (0.1, 0.16, 0.12)]), SIGN, z)
    shining = stream.integer(0, 2)
    for number, lamp in enumerate(_LAMPS):
        colour = lamp if number == shining else scaled(lamp, 0.2)
        radius = camera.focal * 0.12 / z
        canvas.ellipse(*camera.point(x, top - 0.19 - 0.3 * number, z), radius, radius, colour, SIGN, z)


def _plate(
    canvas: Canvas, camera: Camera, kind: str, x: float, y: float, z: float, radius: float, colour: Colour
) -> None:
    if kind == "disc":
        pixels = camera.focal * radius / z
        canvas.ellipse(*camera.point(x, y, z), pixels, pixels, colour, SIGN, z)
    else:
        corners = [camera.point(x + a * radius, y + b * radius, z) for a, b in _PLATES[kind]]
        canvas.polygon(corners, colour, SIGN, z)


def _foot_shadow(canvas: Canvas, camera: Camera, x: float, z: float, half: float = 0.15) -> None:
    column, row = camera.point(x, 0, z)
    pixels = camera.focal / z
    canvas.shade_ground(column, row, pixels * half * 2, max(1.0, pixels * 0.07), 0.4)
