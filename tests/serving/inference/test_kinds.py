"""What is written for every image: asked for by name, refused where the engine does not give it."""

import dataclasses

import pytest

from serving.contract.errors import UserError
from serving.contract.manifest import OutputSpec
from serving.inference.kinds import FORMATS, chosen_kinds, layer_endings


def chosen(manifest, text=None, **asked):
    return chosen_kinds(text, **{"overlay": False, "confidence": False, **asked}, manifest=manifest)


def test_masks_are_the_default_and_others_come_by_name(manifest):
    assert chosen(manifest) == {"mask": ".png"}
    assert chosen(manifest, "overlay,color,cutout") == {
        "overlay": ".overlay.jpg",
        "color": ".color.png",
        "cutout": ".cutout.png",
    }
    assert list(chosen(manifest, "color", overlay=True)) == ["color", "overlay"]
    assert list(chosen(manifest, " mask, color ")) == ["mask", "color"]


def test_overlapping_classes_give_a_layer_each(manifest):
    overlapping = dataclasses.replace(manifest, outputs=(OutputSpec("o", "sigmoid", "NCHW", "float32"),))
    assert chosen(overlapping) == {"mask": ".png", "1": ".green.png", "2": ".blue.png"}
    assert chosen(overlapping, "layers") == {"1": ".green.png", "2": ".blue.png"}


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("masks", {}, "unknown format 'masks'; did you mean 'mask'"),
        ("", {}, "unknown format ''"),
        ("confidence", {}, "--confidence: the engine gives none"),
        (None, {"confidence": True}, "--confidence: the engine gives none"),
        ("layers", {}, "do not overlap"),
    ],
)
def test_what_is_not_there_is_refused(manifest, text, asked, expected):
    with pytest.raises(UserError, match=expected):
        chosen(manifest, text, **asked)


def test_layers_never_share_a_file_with_each_other_or_another_kind():
    names = ("background", "cat", "Cat", "a/b", "a\\b", "color", "..", "日本")
    endings = [*layer_endings(names).values(), *(f".{kind}.png" for kind in FORMATS)]
    assert len({ending.casefold() for ending in endings}) == len(endings)
    assert all("/" not in ending and "\\" not in ending for ending in endings)
    assert layer_endings(names)["7"] == ".日本.png"
