"""Labels lie on what is shown of their images, whichever way they were drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.pipeline.data.importing import replicas
from tests.pipeline.data.importing.importer import Run, needs_formats
from tests.pipeline.data.importing.replicas import covered, rectangle

pytestmark = needs_formats

CORNER = (0, 0, 4, 3)
DRAWN = [{"category_id": 1, "segmentation": [rectangle(*CORNER)]}]
STORED: NDArray[np.bool_] = covered(CORNER)


def photos(source: Path, orientations: dict[str, int], turned: tuple[str, ...] = ()) -> None:
    """An export with a corner drawn on every photo; of those `turned` by a quarter it was drawn on what is shown."""
    for index, (name, orientation) in enumerate(orientations.items()):
        replicas.image(source / name, orientation=orientation, shade=index)
    replicas.coco(source / "all.json", dict.fromkeys(orientations, DRAWN), {1: "one"})
    content = json.loads((source / "all.json").read_text())
    for image in content["images"]:
        if image["file_name"] in turned:
            image["width"], image["height"] = image["height"], image["width"]
    (source / "all.json").write_text(json.dumps(content))


def test_an_image_listed_twice_is_named_and_no_other(source: Path, refused: Callable[..., str]) -> None:
    photos(source, dict.fromkeys(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), 1))
    content = json.loads((source / "all.json").read_text())
    content["images"].insert(2, content["images"][1] | {"id": 99})
    (source / "all.json").write_text(json.dumps(content))
    said = refused()
    assert "listed twice (1)" in said and "b.jpg: the export lists this image" in said


class TestOrientation:
    @pytest.mark.parametrize(("half", "expected"), [(2, np.fliplr), (3, lambda one: np.rot90(one, 2)), (4, np.flipud)])
    def test_photos_told_by_their_sizes_speak_for_the_others(
        self, source: Path, run: Run, half: int, expected: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
    ) -> None:
        photos(source, {"a.jpg": 1, "b.jpg": 6, "c.jpg": half})
        made = run()
        assert (made.where("a", "one") == STORED).all() and (made.where("b", "one") == np.rot90(STORED, -1)).all()
        assert (made.where("c", "one") == expected(STORED)).all()
        assert "2 labels were turned" in made.said
        assert "EXIF: 1 images, such as c," in made.said and "what is stored (as the other photos tell)" in made.said

    def test_drawn_on_what_is_shown(self, source: Path, run: Run) -> None:
        photos(source, {"a.jpg": 1, "b.jpg": 6, "c.jpg": 3}, turned=("b.jpg",))
        made = run()
        assert (made.where("c", "one") == STORED).all() and made.where("b", "one")[:3, :4].all()
        assert "labels were turned" not in made.said and "what is shown (as the other photos tell)" in made.said

    @pytest.mark.parametrize(
        ("orientations", "said"),
        [
            ({"a.jpg": 1, "c.jpg": 3}, "(no other photo tells)"),
            ({"a.jpg": 6, "b.jpg": 6, "c.jpg": 3}, "(the other photos tell both)"),
        ],
    )
    def test_what_nothing_tells_is_said_and_chosen(
        self, source: Path, run: Run, tmp_path: Path, orientations: dict[str, int], said: str
    ) -> None:
        photos(source, orientations, turned=("b.jpg",))
        made = run()
        assert (made.where("c", "one") == STORED).all()
        assert f"what is shown {said}; look at them, or write --drawn-on shown | stored" in made.said
        made.folder.rename(tmp_path / "first")
        made = run("--drawn-on", "stored")
        assert (made.where("c", "one") == np.rot90(STORED, 2)).all() and "EXIF:" not in made.said
        made.folder.rename(tmp_path / "second")
        made = run("--drawn-on", "shown")
        assert (made.where("c", "one") == STORED).all() and "EXIF:" not in made.said

    def test_prepare_says_so_of_them_too(self, source: Path, run: Run, tmp_path: Path) -> None:
        photos(source, {"a.jpg": 6, "b.jpg": 6, "c.jpg": 3})
        done = run().prepare(tmp_path / "prepared")
        assert not [one for one in done.warnings if one.startswith("EXIF")]
        (note,) = (one for one in done.notes if "1 images, such as c," in one)
        assert note.endswith("as the labels of 2 other images fit the turned image")
