"""Images are turned wherever their orientation stands, and labels with them or a warning says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import Preparation, prepare


def xmp() -> dict[str, Any]:
    """As photo editors write it."""
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="3"/>')
    return {"pnginfo": text}


def raw_profile() -> dict[str, Any]:
    """As ImageMagick writes it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    content, text = exif.tobytes(), PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    return {"pnginfo": text}


def text_for_a_number() -> dict[str, Any]:
    entry = b"\x12\x01\x02\0\x02\0\0\x006\0\0\0"
    return {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)}


def folder(root: Path, of_images: dict[str, Any], of_labels: dict[str, Any]) -> Preparation:
    """Three pairs, saved with these options, and prepared."""
    (root / "own/images").mkdir(parents=True)
    (root / "own/labels").mkdir()
    (root / "own/classes.txt").write_text("ground\ndisc\n")
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"own/images/{index}.png", **of_images)
        Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(root / f"own/labels/{index}.png", **of_labels)
    return prepare(PrepareConfig(dataset="folder", root=str(root / "own")), root / "prepared")


@pytest.mark.parametrize("kept", [xmp, raw_profile])
def test_a_turned_image_beside_a_label_that_is_not_is_warned_of(
    tmp_path: Path, kept: Callable[[], dict[str, Any]]
) -> None:
    done = folder(tmp_path, kept(), {})
    assert done.notes == ("EXIF: 3 images and 0 labels were turned by their EXIF orientation",)
    (warning,) = done.warnings
    assert warning.startswith("EXIF: 3 images, such as 1, are turned by an EXIF orientation that their labels do not")


@pytest.mark.parametrize("kept", [xmp, raw_profile])
def test_a_label_turned_as_its_image_is_not(tmp_path: Path, kept: Callable[[], dict[str, Any]]) -> None:
    done = folder(tmp_path, kept(), kept())
    assert done.notes == ("EXIF: 3 images and 3 labels were turned by their EXIF orientation",)
    assert done.warnings == ()


def test_an_orientation_that_is_text_turns_nothing_and_is_told(tmp_path: Path) -> None:
    done = folder(tmp_path, text_for_a_number(), text_for_a_number())
    assert done.warnings == ("images: an EXIF orientation that does not exist, taken as stored: 3 images, such as 1",)
