"""Kinds of results and how their files are named."""

from __future__ import annotations

from collections.abc import Sequence

from serving.contract.errors import UserError, did_you_mean
from serving.contract.manifest import Manifest
from serving.inference.marks import ENDINGS

LAYERS = "layers"
FORMATS = (*ENDINGS, LAYERS)


def chosen_kinds(text: str | None, *, overlay: bool, confidence: bool, manifest: Manifest) -> dict[str, str]:
    """Which files a run writes for every image.

    Args:
        text: of `--format`, kinds with commas between; None: masks, and layers where classes may overlap.
        overlay: whether overlays are asked for beside.
        confidence: whether confidences are.
        manifest: of the engine.

    Returns:
        Kind -> ending, in the order they are written; a layer's kind is its class index.

    Raises:
        UserError: an unknown kind, or one that the engine does not give.
    """
    names = (
        ["mask", *([LAYERS] if manifest.overlapping else [])]
        if text is None
        else [name.strip() for name in text.split(",")]
    )
    names += [name for name, asked in (("overlay", overlay), ("confidence", confidence)) if asked]
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--format {text}: unknown format {name!r}{did_you_mean(name, FORMATS)}")
    if "confidence" in names and manifest.confidence_output is None:
        raise UserError("--confidence: the engine gives none; export it with `output: mask+confidence`")
    if LAYERS in names and not manifest.overlapping:
        raise UserError("--format layers: the classes of this engine do not overlap; `mask` holds them all")
    kinds: dict[str, str] = {}
    for name in names:
        if name == LAYERS:
            kinds |= layer_endings(manifest.class_names)
        else:
            kinds[name] = ENDINGS[name]
    return kinds


def layer_endings(class_names: Sequence[str]) -> dict[str, str]:
    """Class index, as text -> ending of its layer, for all classes after the background.

    Example:
        >>> layer_endings(("background", "cat", "big/dog", "big_dog"))
        {'1': '.cat.png', '2': '.2-big_dog.png', '3': '.3-big_dog.png'}
    """
    names = ["".join(each if each.isalnum() or each in " -_" else "_" for each in name) for name in class_names]
    taken = [*(name.casefold() for name in names), *(ending[1:-4].casefold() for ending in ENDINGS.values())]
    return {
        str(index): f".{name}.png" if taken.count(name.casefold()) == 1 else f".{index}-{name}.png"
        for index, name in enumerate(names)
        if index > 0
    }
