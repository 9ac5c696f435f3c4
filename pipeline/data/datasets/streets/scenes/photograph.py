"""From light to the pixels of a file: haze, white balance, exposure, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes.canvas import Canvas
from pipeline.data.datasets.streets.scenes.noise import Floats
from pipeline.data.datasets.streets.scenes.plan import Light
from pipeline.data.datasets.streets.scenes.random_stream import RandomStream


def photograph(canvas: Canvas, light: Light, stream: RandomStream) -> NDArray[np.uint8]:
    """The canvas as a camera records it: `[H,W,3]` uint8 RGB. The canvas's colours are used up."""
    image = canvas.colour
    haze = 1 - 1 / (1 + np.float32(light.haze) * np.minimum(canvas.depth, np.float32(300)))
    haze[canvas.depth >= np.float32(900)] = 0  # the sky has its own colours
    image += haze[..., None] * (np.asarray(light.horizon, np.float32) - image)

    warmth, tint = stream.uniform(-0.13, 0.13), stream.uniform(-0.05, 0.05)
    exposure = stream.uniform(0.6, 1.2)
    gains = [exposure * (1 + warmth), exposure * (1 + tint), exposure * (1 - warmth)]
    image *= np.asarray(gains, np.float32)
    image *= _vignette(canvas.height, canvas.width, stream.uniform(0.0, 0.3))[..., None]

    for _ in range(stream.weighted([(1, 0.65), (2, 0.35)])):
        image = _blur(image, stream.uniform(0.1, 0.24))
    if stream.chance(0.15):
        image = _smear(image)

    image = np.minimum(np.maximum(image, 0), 1)
    contrast = stream.uniform(0.0, 0.5)  # a film curve: steeper in the middle, never decreasing
    image = image * (1 - np.float32(contrast)) + np.float32(contrast) * image * image * (3 - 2 * image)

    noise = _sensor_noise(canvas.height, canvas.width, stream)
    strength = np.float32(stream.uniform(0.006, 0.03))
    image = image + noise * strength * np.sqrt(np.float32(0.15) + image)  # photon noise: the root of the light
    pixels: NDArray[np.uint8] = np.minimum(np.maximum(image * 255 + np.float32(0.5), 0), 255).astype(np.uint8)
    return pixels


def _vignette(height: int, width: int, strength: float) -> Floats:
    """Light fall-off towards the corners, `[H,W]`."""
    across = ((np.arange(width) + 0.5) / width * 2 - 1).astype(np.float32)
    down = ((np.arange(height) + 0.5) / height * 2 - 1).astype(np.float32)
    fall: Floats = 1 - np.float32(strength / 2) * ((across * across)[None, :] + (down * down)[:, None])
    return fall


def _blur(image: Floats, share: float) -> Floats:
    """Each pixel gives `share` of its light to each neighbour, down and across."""
    part = np.float32(share)
    padded = np.concatenate([image[:1], image, image[-1:]])
    image = image + part * (padded[:-2] + padded[2:] - 2 * image)
    padded = np.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
    blurred: Floats = image + part * (padded[:, :-2] + padded[:, 2:] - 2 * image)
    return blurred


def _smear(image: Floats) -> Floats:
    """Three pixels of sideways motion."""
    padded = np.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
    smeared: Floats = (padded[:, :-2] + padded[:, 2:] + image) / np.float32(3)
    return smeared


def _sensor_noise(height: int, width: int, stream: RandomStream) -> Floats:
    """About normal, mean 0, deviation 1, `[H,W,3]`: the sum of four uniform bytes."""
    count = height * width * 3
    words = stream.bytes(4 * count).reshape(4, count).astype(np.int16)
    total = words[0] + words[1] + words[2] + words[3]
    normal: Floats = ((total - np.int16(510)).astype(np.float32) / np.float32(147.8)).reshape(height, width, 3)
    return normal
