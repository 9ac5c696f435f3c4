"""What the command wrote and printed, as its tests look at it."""

import json

import numpy as np
from PIL import Image


def read_mask(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def records_of(captured):
    """The records of `--json` on standard output."""
    return [json.loads(line) for line in captured.out.splitlines()]
