"""Raw latencies of the benchmark, for their distribution functions."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.latency.paired_latency import load_pairs
from serving.contract.errors import UserError

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LatencySamples:
    """What the stopwatch gave, nothing left out.

    Attributes:
        engines: (branch, target) -> `[queries]` milliseconds of all sessions.
        ratios: comparison -> `[blocks]` latency over the baseline's in the same block; `control` is the baseline
            against itself.
    """

    engines: dict[tuple[str, str], Float64]
    ratios: dict[str, Float64]


def load_samples(path: Path) -> LatencySamples:
    """Read what `benchmark` wrote. Raises UserError when it is missing or damaged."""
    pairs = load_pairs(path)
    ratios = {name: np.exp(np.concatenate([pair.log_ratios for pair in found])) for name, found in pairs.items()}
    sessions: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for key in sorted(each for each in arrays.files if each.startswith("engines/")):
                _, branch, target, _ = key.split("/")
                sessions.setdefault((branch, target), []).append(arrays[key])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not the samples of a benchmark ({error}); run `benchmark` again") from None
    return LatencySamples({key: np.concatenate(found) / 1e6 for key, found in sessions.items()}, ratios)
