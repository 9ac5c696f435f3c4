"""Colours of things, in families that the classes share: no colour belongs to one class."""

from __future__ import annotations

from pipeline.data.datasets.streets.scenes.random_stream import Colour, RandomStream

_FAMILIES: dict[str, tuple[Colour, ...]] = {
    "grey": ((0.22, 0.22, 0.23), (0.36, 0.36, 0.37), (0.5, 0.5, 0.51), (0.62, 0.62, 0.61)),
    "dark": ((0.09, 0.09, 0.1), (0.13, 0.12, 0.12), (0.1, 0.13, 0.18), (0.16, 0.12, 0.1)),
    "pale": ((0.78, 0.77, 0.74), (0.85, 0.84, 0.82), (0.76, 0.7, 0.58), (0.7, 0.74, 0.78)),
    "earth": ((0.5, 0.27, 0.2), (0.56, 0.36, 0.25), (0.62, 0.48, 0.32), (0.4, 0.3, 0.22), (0.66, 0.56, 0.42)),
    "bright": ((0.68, 0.12, 0.12), (0.14, 0.26, 0.58), (0.78, 0.62, 0.12), (0.1, 0.42, 0.5), (0.75, 0.38, 0.1)),
    "green": ((0.2, 0.36, 0.15), (0.29, 0.43, 0.2), (0.16, 0.27, 0.14), (0.42, 0.47, 0.22)),
    "autumn": ((0.6, 0.42, 0.14), (0.55, 0.27, 0.12), (0.46, 0.36, 0.2), (0.5, 0.18, 0.12)),
    "blue": ((0.42, 0.56, 0.74), (0.5, 0.62, 0.76), (0.34, 0.44, 0.58), (0.6, 0.68, 0.78)),
}

# what -> families with their share
_USES: dict[str, tuple[tuple[str, float], ...]] = {
    "building": (("earth", 0.38), ("grey", 0.22), ("pale", 0.22), ("blue", 0.1), ("green", 0.05), ("dark", 0.03)),
    "car": (("grey", 0.27), ("dark", 0.22), ("pale", 0.18), ("bright", 0.18), ("earth", 0.07), ("blue", 0.08)),
    "clothes": (("dark", 0.24), ("bright", 0.24), ("grey", 0.16), ("blue", 0.13), ("earth", 0.13), ("green", 0.1)),
    "fence": (("earth", 0.4), ("grey", 0.2), ("pale", 0.15), ("green", 0.15), ("dark", 0.1)),
    "pole": (("grey", 0.45), ("dark", 0.25), ("green", 0.1), ("earth", 0.1), ("pale", 0.1)),
    "sign": (("bright", 0.6), ("pale", 0.2), ("blue", 0.1), ("green", 0.1)),
    "vegetation": (("green", 0.74), ("autumn", 0.26)),
    "terrain": (("green", 0.58), ("autumn", 0.2), ("earth", 0.22)),
    "sidewalk": (("grey", 0.52), ("earth", 0.3), ("pale", 0.18)),
    "clutter": (("dark", 0.25), ("grey", 0.2), ("green", 0.2), ("bright", 0.2), ("earth", 0.15)),
}


def colour_of(stream: RandomStream, use: str) -> Colour:
    """A colour for `use` (a key of the table above): a family's tone, lighter or darker, a little off."""
    tone = stream.choice(_FAMILIES[stream.weighted(_USES[use])])
    light = stream.uniform(0.75, 1.25)
    red, green, blue = (min(0.95, max(0.03, light * part + stream.uniform(-0.035, 0.035))) for part in tone)
    return red, green, blue


def asphalt(stream: RandomStream) -> Colour:
    """Asphalt or concrete: greys from near black to light, warm or cold."""
    light, warmth = stream.uniform(0.15, 0.52), stream.uniform(-0.03, 0.05)
    return light + warmth, light + warmth * 0.3, light - warmth * 0.6


def skin(stream: RandomStream) -> Colour:
    """Skin, from dark to light."""
    light = stream.uniform(0.25, 0.85)
    return light, light * 0.76, light * 0.62


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of `second`, the rest of `first`."""
    return (
        first[0] + share * (second[0] - first[0]),
        first[1] + share * (second[1] - first[1]),
        first[2] + share * (second[2] - first[2]),
    )


def scaled(colour: Colour, light: float) -> Colour:
    """`colour` in more or less light."""
    return colour[0] * light, colour[1] * light, colour[2] * light
