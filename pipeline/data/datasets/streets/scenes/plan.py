"""The plan of a random street: widths, buildings, fences, light. Metres; x to the right, z along the street."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data.datasets.streets.scenes.colours import asphalt, colour_of, mixed, scaled
from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream

END = 130.0
"""Where the street meets the backdrop, in metres."""


@dataclass(frozen=True)
class Building:
    """One building of a row.

    Attributes:
        start: z of its near wall.
        end: z of its far wall.
        height: of its walls.
        wall: colour of the walls.
        glass: colour of the windows.
        frame: colour of the ground floor.
        storey: height of a storey.
        bay: distance between windows.
        opening: share of a bay that is window.
        bricks: visible courses of brick or panels.
        shop: large windows on the ground floor.
        shift: moves its noise.
    """

    start: float
    end: float
    height: float
    wall: Colour
    glass: Colour
    frame: Colour
    storey: float
    bay: float
    opening: float
    bricks: bool
    shop: bool
    shift: int


@dataclass(frozen=True)
class Fence:
    """A fence along the street.

    Attributes:
        offset: distance from the camera's line, on its side.
        start: z where it begins.
        end: z where it ends.
        height: metres.
        colour: of the boards.
        pitch: width of a board or panel.
        rails: horizontal boards instead of upright ones.
    """

    offset: float
    start: float
    end: float
    height: float
    colour: Colour
    pitch: float
    rails: bool


@dataclass(frozen=True)
class Side:
    """One side of the street; distances from the camera's line, growing outwards.

    Attributes:
        sign: -1 left, 1 right.
        kerb: where the road ends.
        verge: where a strip of grass along the kerb ends and the sidewalk begins; the kerb itself without a strip.
        sidewalk: where the sidewalk ends.
        facade: where the buildings stand.
        buildings: from near to far; empty in a park.
        fences: from near to far.
        opening: z range without buildings and fences (a side street), or None.
    """

    sign: int
    kerb: float
    verge: float
    sidewalk: float
    facade: float
    buildings: tuple[Building, ...]
    fences: tuple[Fence, ...]
    opening: tuple[float, float] | None


@dataclass(frozen=True)
class Light:
    """How the scene is lit.

    Attributes:
        sky: colour overhead.
        horizon: colour of the sky at the horizon, and of the haze.
        clouds: colour of the clouds.
        cover: share of the sky under clouds.
        left: light on walls that face right (those of the left side).
        right: light on walls that face left.
        front: light on what faces the camera.
        ground: light on the ground in the open.
        shadow: light left in a shadow.
        shadow_left: reach of the left side's shadow onto the street, metres; 0 when the sun is elsewhere.
        shadow_right: the same of the right side.
        haze: share of haze per metre, small.
    """

    sky: Colour
    horizon: Colour
    clouds: Colour
    cover: float
    left: float
    right: float
    front: float
    ground: float
    shadow: float
    shadow_left: float
    shadow_right: float
    haze: float


@dataclass(frozen=True)
class Street:
    """Everything flat or walled; what stands on it is placed by `render`.

    Attributes:
        left: the side with x < 0.
        right: the side with x > 0.
        road: colour of the asphalt.
        pavement: colour of the sidewalks.
        soil: colour of grass or earth.
        marking: colour of the road markings.
        lanes: number of lanes.
        dashed: dashed lane lines instead of solid ones.
        edge_lines: lines along the kerbs.
        zebra: z of a pedestrian crossing's near edge, or None.
        slab: size of the sidewalk's slabs.
        shift: moves the noise.
    """

    left: Side
    right: Side
    road: Colour
    pavement: Colour
    soil: Colour
    marking: Colour
    lanes: int
    dashed: bool
    edge_lines: bool
    zebra: float | None
    slab: float
    shift: int

    @property
    def sides(self) -> tuple[Side, Side]:
        """Left and right."""
        return self.left, self.right


def plan_street(stream: RandomStream) -> Street:
    """A street: two to three lanes, sidewalks, and on each side buildings or a park."""
    lanes = stream.weighted([(2, 0.62), (3, 0.2), (1, 0.18)])
    width = lanes * stream.uniform(2.8, 3.6) + stream.uniform(0.0, 2.2)
    left_part = width * stream.uniform(0.34, 0.66)
    opening = None
    if stream.chance(0.35):
        start = stream.uniform(14.0, 45.0)
        opening = (start, start + stream.uniform(6.0, 10.0))
    park = stream.weighted([(-1, 0.16), (1, 0.16), (0, 0.68)])
    opens = stream.weighted([(-1, 0.35), (1, 0.35), (0, 0.3)])
    sides = [
        _plan_side(stream, sign, kerb, park == sign, opening if opens in (0, sign) else None)
        for sign, kerb in ((-1, left_part), (1, width - left_part))
    ]
    pavement = asphalt(stream) if stream.chance(0.4) else colour_of(stream, "sidewalk")
    return Street(
        left=sides[0],
        right=sides[1],
        road=asphalt(stream),
        pavement=pavement,
        soil=colour_of(stream, "terrain"),
        marking=(0.85, 0.85, 0.82) if stream.chance(0.85) else (0.8, 0.66, 0.2),
        lanes=lanes,
        dashed=stream.chance(0.7),
        edge_lines=stream.chance(0.35),
        zebra=stream.uniform(6.0, 20.0) if stream.chance(0.3) else None,
        slab=stream.uniform(0.4, 1.1),
        shift=stream.integer(0, 255),
    )


def plan_light(stream: RandomStream) -> Light:
    """Clear, overcast, hazy or low sun; every colour of sky is also a colour of walls or cars."""
    weather = stream.weighted([("clear", 0.4), ("overcast", 0.35), ("low sun", 0.25)])
    if weather == "clear":
        sky, horizon, cover = (0.3, 0.5, 0.8), (0.68, 0.78, 0.88), stream.uniform(0.0, 0.6)
    elif weather == "overcast":
        grey = stream.uniform(0.45, 0.85)
        sky, horizon, cover = (
            (grey, grey, grey * 1.03),
            (grey * 1.08, grey * 1.08, grey * 1.08),
            stream.uniform(0.6, 1.0),
        )
    else:
        sky, horizon, cover = (0.4, 0.46, 0.6), (0.88, 0.68, 0.46), stream.uniform(0.1, 0.7)
    sun = 0.0 if weather == "overcast" else stream.uniform(0.35, 1.0)
    side = stream.choice([-1, 0, 1])  # -1: the sun stands to the left, the left side throws the shadow
    bright, dim = 1.0 + 0.12 * sun, 1.0 - 0.5 * sun
    reach = stream.uniform(3.0, 11.0) if sun and side else 0.0
    return Light(
        sky=scaled(sky, stream.uniform(0.85, 1.15)),
        horizon=horizon,
        clouds=mixed(horizon, (0.92, 0.92, 0.93), stream.uniform(0.0, 1.0)),
        cover=cover,
        left=dim if side == -1 else bright if side == 1 else 0.85,
        right=dim if side == 1 else bright if side == -1 else 0.85,
        front=stream.uniform(0.6, 1.0),
        ground=1.0 if side == 0 else stream.uniform(0.95, 1.15),
        shadow=1.0 - 0.5 * sun,
        shadow_left=reach if side == -1 else 0.0,
        shadow_right=reach if side == 1 else 0.0,
        haze=stream.weighted([(stream.uniform(0.0005, 0.002), 0.7), (stream.uniform(0.003, 0.009), 0.3)]),
    )


def _plan_side(stream: RandomStream, sign: int, kerb: float, park: bool, opening: tuple[float, float] | None) -> Side:
    verge = kerb + (stream.uniform(0.9, 3.0) if stream.chance(0.3) else 0.0)
    sidewalk = verge + stream.uniform(1.6, 4.2)
    garden = stream.uniform(2.0, 9.0) if park or stream.chance(0.45) else 0.0
    facade = sidewalk + garden
    buildings = () if park else tuple(_plan_buildings(stream, opening))
    fences: list[Fence] = []
    if garden and stream.chance(0.5):
        fences += _plan_fences(stream, sidewalk, 1.8, opening)
    elif stream.chance(0.2):
        fences += _plan_fences(stream, kerb + 0.22, 1.05, opening)  # a railing at the kerb
    return Side(sign, kerb, verge, sidewalk, facade, buildings, tuple(fences), opening)


def _plan_buildings(stream: RandomStream, opening: tuple[float, float] | None) -> list[Building]:
    buildings = []
    position = stream.uniform(-6.0, 2.0)
    usual = stream.uniform(5.0, 16.0)
    while position < END:
        length = stream.uniform(7.0, 22.0)
        start, end = position, position + length
        if opening and start < opening[1] and end > opening[0]:
            end = opening[0]
            position = opening[1]
        else:
            position = end + (stream.uniform(1.5, 7.0) if stream.chance(0.3) else 0.0)
        if end - start < 1.5:
            continue
        wall = colour_of(stream, "building")
        buildings.append(
            Building(
                start=start,
                end=end,
                height=max(3.2, usual * stream.uniform(0.6, 1.5)),
                wall=wall,
                glass=mixed(colour_of(stream, "clutter"), (0.2, 0.25, 0.32), 0.6),
                frame=mixed(wall, colour_of(stream, "sign"), stream.uniform(0.0, 0.9)),
                storey=stream.uniform(2.7, 3.6),
                bay=stream.uniform(1.5, 3.4),
                opening=stream.uniform(0.35, 0.75),
                bricks=stream.chance(0.5),
                shop=stream.chance(0.4),
                shift=stream.integer(0, 255),
            )
        )
    return buildings


def _plan_fences(
    stream: RandomStream, offset: float, tallest: float, opening: tuple[float, float] | None
) -> list[Fence]:
    start = stream.uniform(0.0, 10.0)
    end = start + stream.uniform(8.0, 40.0)
    height, colour = tallest * stream.uniform(0.55, 1.0), colour_of(stream, "fence")
    pitch, rails = stream.uniform(0.14, 0.5), stream.chance(0.3)
    pieces = [(start, end)]
    if opening:
        pieces = [(start, min(end, opening[0])), (max(start, opening[1]), end)]
    return [Fence(offset, near, far, height, colour, pitch, rails) for near, far in pieces if far - near > 2.0]
