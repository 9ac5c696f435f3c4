"""A sheet of labelled samples to look at: each image, the same under its label, and what the colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.datasets.folder.classes import distinct_colour
from pipeline.data.datasets.folder.meaning.label_facts import read_label
from pipeline.data.datasets.shared.dataset import SPLITS, Dataset
from pipeline.data.datasets.shared.facts import colour_codes, colour_of
from pipeline.data.datasets.shared.labels import IGNORE_INDEX, Colour
from pipeline.data.describing.description import Described
from pipeline.data.preparing.checking import SoundPair
from serving.contract.errors import UserError
from serving.images.geometry import resize_image, resize_nearest
from serving.images.image_io import read_image
from serving.render import legend, overlay

UInt8 = NDArray[np.uint8]

SAMPLES = 12
_SIDE, _MARGIN, _TEXT, _COLUMNS = 240, 8, 13, 2
_VOID: Colour = (255, 0, 255)
_OPACITY = 0.6
_NAMES = 40


def draw_sheet(described: Described) -> UInt8:
    """The sheet, `[H,W,3]` uint8 RGB.

    Samples are chosen so that every class is seen, the rarest first. Where it is not settled what labels mean, their
    numbers and colours are shown as they are.

    Raises:
        UserError: no pair can be shown.
    """
    chosen = _chosen(described)
    if not chosen:
        raise UserError(f"{described.description.root}: no image with a sound label, so that there is nothing to draw")
    dataset = described.dataset
    if described.description.classes:
        names = [*dataset.class_names, "void"]
        palette = [*dataset.palette, _VOID]
        masks = [_settled(dataset, pair) for _, pair in chosen]
    else:
        masks, names, palette = _as_they_are(dataset, [pair for _, pair in chosen])
    samples = [
        _sample(dataset.root, split, pair, mask, palette) for (split, pair), mask in zip(chosen, masks, strict=True)
    ]
    return _grid(samples, legend(names[:_NAMES], palette[:_NAMES], size=_TEXT))


def _chosen(described: Described) -> list[tuple[str, SoundPair]]:
    """Pairs with as many classes as can be, then others spread over the rest."""
    look = described.look
    pairs = [(split, pair) for split in SPLITS for pair in look.sound[split]]
    counts = [found > 0 for split in SPLITS for found in look.counts[split]]
    taken: list[int] = []
    if counts:
        shown = np.array(counts)
        for index in np.argsort(shown.sum(axis=0), kind="stable"):
            seen = bool(taken) and shown[taken, index].any()
            if len(taken) < SAMPLES and shown[:, index].any() and not seen:
                rare = shown[:, index] * (1 + shown.sum(axis=1))
                taken.append(int(rare.argmax()))
    rest = [index for index in range(len(pairs)) if index not in set(taken)]
    missing = min(SAMPLES - len(taken), len(rest))
    taken += [rest[index * len(rest) // missing] for index in range(missing)]
    return [pairs[index] for index in taken]


def _settled(dataset: Dataset, pair: SoundPair) -> UInt8:
    """Train ids, void behind the classes."""
    mask = dataset.decode_labels([(dataset.root / name, None) for name in pair.entry.labels])
    return np.where(mask == IGNORE_INDEX, np.uint8(len(dataset.class_names)), mask)


def _as_they_are(dataset: Dataset, pairs: Sequence[SoundPair]) -> tuple[list[UInt8], list[str], list[Colour]]:
    """Every number or colour of the labels as an index, what it is, and a colour for it."""
    raw = []
    for pair in pairs:
        label = read_label(dataset.root / pair.entry.label, None, getattr(dataset.options, "mat_variable", None))
        raw.append((label.is_coloured, colour_codes(label.colours()) if label.is_coloured else label.pixels))
    keys = sorted({(coloured, int(value)) for coloured, values in raw for value in np.unique(values)})[:255]
    masks = []
    for coloured, values in raw:
        mask = np.full(values.shape, 255, np.uint8)
        for index, (of_colour, value) in enumerate(keys):
            if of_colour == coloured:
                mask[values == value] = index
        masks.append(mask)
    names = [str(colour_of(value)) if coloured else str(value) for coloured, value in keys]
    palette = [colour_of(value) if coloured else distinct_colour(index) for index, (coloured, value) in enumerate(keys)]
    return masks, names, palette


def _sample(root: Path, split: str, pair: SoundPair, mask: UInt8, palette: Sequence[Colour]) -> UInt8:
    """Image and labelled image side by side, the name below."""
    image = read_image(root / pair.entry.image)
    factor = min(_SIDE / max(image.shape[:2]), 8.0)
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    small, small_mask = resize_image(image, height, width), resize_nearest(mask, height, width)
    canvas = Image.new("RGB", (2 * _SIDE + _MARGIN, height + _TEXT + _MARGIN), "white")
    for column, picture in enumerate((small, overlay(small, small_mask, palette, opacity=_OPACITY))):
        left = column * (_SIDE + _MARGIN) + (_SIDE - width) // 2
        canvas.paste(Image.fromarray(picture), (left, 0))
    font = ImageFont.load_default(_TEXT)
    text = f"{split}: {pair.entry.name}"
    while font.getlength(text) > canvas.width:
        text = f"{text[: max(1, len(text) - 8)]}..."
    ImageDraw.Draw(canvas).text((0, height + 2), text, fill=(20, 20, 20), font=font)
    return np.asarray(canvas)


def _grid(samples: Sequence[UInt8], explained: UInt8) -> UInt8:
    """Samples in columns, the legend at their right."""
    height, width = max(sample.shape[0] for sample in samples), samples[0].shape[1]
    columns = min(_COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    left = _MARGIN + columns * (width + 2 * _MARGIN)
    size = (left + explained.shape[1] + _MARGIN, max(rows * (height + _MARGIN), explained.shape[0]) + 2 * _MARGIN)
    sheet = Image.new("RGB", size, "white")
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        sheet.paste(
            Image.fromarray(sample), (_MARGIN + column * (width + 2 * _MARGIN), _MARGIN + row * (height + _MARGIN))
        )
    sheet.paste(Image.fromarray(explained), (left, _MARGIN))
    return np.asarray(sheet)
