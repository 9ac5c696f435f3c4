"""Tileable value noise, looked up by world coordinates."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.data.datasets.streets.scenes.random_stream import RandomStream

SIZE = 256
_MASK = SIZE - 1
_BIAS = 1 << 14  # keeps the coordinates positive, so that truncation rounds one way

Floats = NDArray[np.float32]


@lru_cache(maxsize=1)
def bank() -> tuple[Floats, Floats, Floats]:
    """Three `[256,256]` float32 tables in [0,1): white noise, soft grain (cells of 4), clouds (several octaves)."""
    stream = RandomStream(20_210_811)
    grain = 0.65 * _value_noise(stream, 4) + 0.35 * _value_noise(stream, 2)
    clouds = 0.5 * _value_noise(stream, 64) + 0.27 * _value_noise(stream, 32)
    clouds = clouds + 0.15 * _value_noise(stream, 16) + 0.08 * _value_noise(stream, 8)
    return _value_noise(stream, 1), grain, clouds


def look_up(table: Floats, u: Floats, v: Floats, scale: float, shift: int = 0) -> Floats:
    """`table` at world coordinates `u`, `v` times `scale` entries per unit; nearest entry, wrapping around.

    Args:
        table: one of `bank()`.
        u: float32, |u * scale| below 16384; broadcast with `v`.
        v: the same for the rows.
        scale: entries per unit of the coordinates.
        shift: moves the pattern, so that two surfaces do not repeat each other.
    """
    column = ((u * np.float32(scale)).astype(np.float32) + np.float32(_BIAS)).astype(np.int32) + shift
    row = ((v * np.float32(scale)).astype(np.float32) + np.float32(_BIAS)).astype(np.int32) + 7 * shift
    found: Floats = table[row & _MASK, column & _MASK]
    return found


def window(table: Floats, height: int, width: int, step: float, shift: int) -> Floats:
    """A `[height,width]` piece of `table` with `step` entries per pixel."""
    columns = ((np.arange(width, dtype=np.float32) * np.float32(step)).astype(np.int32) + shift) & _MASK
    rows = ((np.arange(height, dtype=np.float32) * np.float32(step)).astype(np.int32) + 7 * shift) & _MASK
    piece: Floats = table[rows[:, None], columns[None, :]]
    return piece


def _value_noise(stream: RandomStream, cell: int) -> Floats:
    """Random values on a grid of `cell` entries, smoothly interpolated; wraps around."""
    count = SIZE // cell
    grid = stream.bytes(count * count).reshape(count, count).astype(np.float32) / np.float32(256)
    position = np.arange(SIZE)
    start, part = position // cell, (position % cell).astype(np.float32) / np.float32(cell)
    part = part * part * (3 - 2 * part)
    end = (start + 1) % count
    rows = grid[start] * (1 - part)[:, None] + grid[end] * part[:, None]
    columns: Floats = rows[:, start] * (1 - part)[None, :] + rows[:, end] * part[None, :]
    return columns
