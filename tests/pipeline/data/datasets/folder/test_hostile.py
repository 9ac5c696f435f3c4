"""Folders that nobody makes on purpose, and people have: right, or refused in words, never a wrong class in silence.

More of each kind stand where its rule is tested; tests/test_kinds_of_input.py lists them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError

TWO = ("background", "object")
THREE = ("ground", "disc", "bar")
COLOURED = ("ground 0 0 0", "disc 200 0 0", "bar 0 0 200")
COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)

Save = Callable[[np.ndarray, Path, int], object]


def refused(own: Any, *words: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        own.prepare(**options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


def mapped(*numbers: int, dtype: type = np.uint8, suffix: str = ".png") -> Save:
    """Save class k as the k-th number."""

    def save(ids: np.ndarray, path: Path, index: int) -> None:
        values = np.array(numbers, dtype)[ids]
        if suffix == ".npy":
            np.save(path.with_suffix(suffix), values)
        else:
            Image.fromarray(values).save(path.with_suffix(suffix))

    return save


class TestBinaryMasks:
    @pytest.mark.parametrize("background", ["background", "Background", "bg", "_background_"])
    def test_a_background_that_would_be_255_is_asked_about(self, own: Any, background: str) -> None:
        own.write(("crack", background), mapped(255, 0))
        refused(own, f"255 is {background!r} and 0 is 'crack'", f"crack 255 and {background} 0")
        (own.root / "classes.txt").write_text(f"crack 255\n{background} 0\n")
        own.expect(2)

    def test_the_largest_number_of_16_bits_is_shown_as_a_line(self, own: Any) -> None:
        own.write(TWO, mapped(0, 65535, dtype=np.uint16))
        refused(own, "unknown label 65535", "background 0, object 65535")

    @pytest.mark.parametrize(("white", "black"), [(254, 0), (255, 1), (255, 3)])
    def test_nearly_0_and_255_are_no_masks(self, own: Any, white: int, black: int) -> None:
        own.write(TWO, mapped(black, white))
        refused(own, "label")

    def test_resized_masks_are_refused(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            large = Image.fromarray(ids * np.uint8(255)).resize((64, 48), Image.Resampling.BILINEAR)
            large.resize((16, 12), Image.Resampling.BILINEAR).save(path.with_suffix(".png"))

        own.write(TWO, save)
        refused(own, "unknown label ")

    def test_arrays_of_true_and_false(self, own: Any) -> None:
        own.write(TWO, mapped(False, True, dtype=np.bool_, suffix=".npy")).expect(2)

    def test_numbers_of_objects_are_no_classes(self, own: Any) -> None:
        own.write(TWO, labels=lambda index: own.scene(index, 5))
        refused(own, "unknown label 2: ")


class TestVoid:
    def test_void_values_that_are_classes(self, own: Any) -> None:
        """Labels of 0 for void and 1 to 2, one class of three being absent: void_values alone would shift them all."""
        own.write(THREE, labels=lambda index: np.minimum(own.scene(index, 3) + 1, 2).astype(np.uint8))
        refused(own, "void_values holds 0, which is 'ground'", void_values=[0])

    def test_values_for_labels_of_colours_and_colours_for_labels_of_numbers(self, own: Any, tmp_path: Path) -> None:
        own.write(COLOURED, lambda ids, path, index: Image.fromarray(COLOURS[ids]).save(path.with_suffix(".png")))
        refused(own, "void_values: these labels are told by their colours", void_values=[7])
        shutil.rmtree(own.root)
        own.write(THREE)
        refused(own, "void_colours: these labels are told by their numbers", void_colours=[[9, 9, 9]])

    def test_everything_void_by_transparency(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(COLOURS[ids]).convert("RGBA")
            picture.putalpha(0)
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save)
        refused(own, "train: none of its", "has a labelled pixel", transparent="void")

    def test_everything_void_by_colour(self, own: Any) -> None:
        grey = np.full((12, 16, 3), (9, 8, 7), np.uint8)
        own.write(COLOURED, lambda ids, path, index: Image.fromarray(grey).save(path.with_suffix(".png")))
        refused(own, "has a labelled pixel", void_colours=[[9, 8, 7]])

    def test_one_labelled_pixel_is_a_labelled_pixel_and_the_rest_is_told(self, own: Any) -> None:
        def label(index: int) -> np.ndarray:
            ids = np.full((12, 16), 255, np.uint8)
            ids[index, : 2 if index < 5 else 0] = (0, 1)[: 2 if index < 5 else 0]
            return ids

        own.write(("ground", "disc", "bar"), labels=label)
        refused(own, "is 255 void, or the class 'bar'?")
        told = "\n".join(own.prepare(labels="numbers").warnings)
        assert "unlabelled: " in told and "unused class: bar" in told


class TestPalettes:
    def test_palettes_among_plain_numbers(self, own: Any) -> None:
        """Three files numbered anew by their palettes, three plain: the plain ones could be either."""

        def save(ids: np.ndarray, path: Path, index: int) -> None:
            order = np.roll([0, 1, 2], index % 3)
            picture = Image.fromarray(np.argsort(order).astype(np.uint8)[ids])
            if index % 2:
                picture.putpalette(COLOURS[order].tobytes())
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save)
        refused(own, "label")

    def test_palettes_among_colours(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(COLOURS[ids])
            if index % 2:
                picture = picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save).expect(3)

    def test_palettes_that_only_differ_where_nothing_is_drawn(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(ids)
            picture.putpalette([*COLOURS.reshape(-1).tolist(), index, index, index])
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save).expect(3)
        own.expect(3)

    def test_palettes_of_two_programs_without_colours_in_classes_txt(self, own: Any) -> None:
        """One shows class 1 red, the other class 2."""

        def save(ids: np.ndarray, path: Path, index: int) -> None:
            shown = [(0, 0, 0), (200, 0, 0), (0, 0, 200)] if index % 2 else [(0, 0, 0), (0, 0, 200), (200, 0, 0)]
            picture = Image.fromarray(ids)
            picture.putpalette([part for colour in shown for part in colour])
            picture.save(path.with_suffix(".png"))

        own.write(THREE, save)
        refused(own, "contradict each other", "labels: numbers")
        own.expect(3, labels="numbers")


def flat(own: Any, names: list[str]) -> None:
    """Pairs of these names, each label all of its own rows."""
    own.write(THREE, count=len(names))
    for index, name in enumerate(names):
        for folder in ("images", "labels"):
            place = own.root / folder / f"{name}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            (own.root / folder / f"p{index}.png").rename(place)


class TestNames:
    def test_a_list_of_undecodable_names(self, own: Any) -> None:
        flat(own, [os.fsdecode(b"caf\xe9"), "b", "c", "d"])
        (own.root / "train.txt").write_bytes(b"images/caf\xe9.png\nb.png\n")
        (own.root / "val.txt").write_text("c\nd\n")
        assert own.prepare().pairs == {"train": 2, "val": 2, "test": 0}

    def test_a_list_in_the_other_form_of_unicode(self, own: Any) -> None:
        flat(own, ["e\u0301", "b", "c", "d"])
        (own.root / "train.txt").write_text("\u00e9.png\nb.png\n", encoding="utf-8")
        (own.root / "val.txt").write_text("c\nd\n")
        assert own.prepare().pairs == {"train": 2, "val": 2, "test": 0}

    def test_a_line_with_blanks_is_not_another_image(self, own: Any) -> None:
        """`a b.png` is missing; `a.png` is there."""
        flat(own, ["a", "b", "c", "d"])
        (own.root / "train.txt").write_text("a b.png\nb.png\n")
        (own.root / "val.txt").write_text("c\nd\n")
        refused(own, "'a b.png' is no image")

    @pytest.mark.parametrize("line", ["a.png labels/a.png", "images/a.png,labels/a.png", "a 1", "a.png a_mask.png"])
    def test_lines_with_labels_behind_the_image(self, own: Any, line: str) -> None:
        flat(own, ["a", "b", "c", "d"])
        (own.root / "train.txt").write_text(f"{line}\nb.png\n")
        (own.root / "val.txt").write_text("c\nd\n")
        assert own.prepare().pairs["train"] == 2

    def test_names_with_line_breaks_blanks_and_marks(self, own: Any) -> None:
        flat(own, ["a\nb", " c", "d #1", "e;f", "-g", "h%20i"])
        assert sum(own.prepare().pairs.values()) == 6
        assert len(own.read()) == 6

    def test_classes_txt_of_another_encoding(self, own: Any) -> None:
        own.write(THREE)
        (own.root / "classes.txt").write_bytes("boden\nstraße\nhäuser\n".encode("latin-1"))
        refused(own, "classes.txt", "expected a text file")

    def test_names_that_differ_in_case_alone(self, own: Any) -> None:
        own.write(THREE)
        (own.root / "images/p0.png").rename(own.root / "images/P0.png")
        refused(own, "missing image (1)", "missing label (1)")

    def test_a_pattern_of_sequences_that_no_name_has(self, own: Any) -> None:
        own.write(THREE)
        refused(
            own, "sequence_pattern: '^clip(\\\\d+)' is found in no name, such as 'p0'", sequence_pattern=r"^clip(\d+)"
        )


class TestFolders:
    def test_images_in_folders_of_which_the_labels_know_nothing(self, own: Any) -> None:
        own.write(THREE)
        (own.root / "images/day2").mkdir()
        (own.root / "images/p0.png").rename(own.root / "images/day2/p0.png")
        refused(own, "missing image (1)", "missing label (1)")

    def test_equal_names_in_two_folders_keep_their_own_labels(self, own: Any) -> None:
        own.write(THREE, count=6)
        for folder in ("images", "labels"):
            (own.root / folder / "day2").mkdir()
            (own.root / folder / "p1.png").rename(own.root / folder / "day2/p0.png")
        found = own.read()
        np.testing.assert_array_equal(found["day2/p0"], own.scene(1, 3))
        np.testing.assert_array_equal(found["p0"], own.scene(0, 3))

    def test_results_of_another_program_among_the_labels(self, own: Any) -> None:
        own.write(THREE)
        Image.fromarray(COLOURS[own.scene(0, 3)]).save(own.root / "labels/p0_overlay.png")
        refused(own, "p0_overlay")


class TestLinks:
    def test_a_link_that_leads_nowhere(self, own: Any) -> None:
        own.write(THREE)
        (own.root / "images/p0.png").unlink()
        (own.root / "images/p0.png").symlink_to("/nowhere/p0.png")
        refused(own, "p0")

    def test_a_label_that_is_a_link_to_another_ones_label_is_that_label(self, own: Any) -> None:
        own.write(THREE)
        (own.root / "labels/p0.png").unlink()
        (own.root / "labels/p0.png").symlink_to(own.root / "labels/p1.png")
        np.testing.assert_array_equal(own.read()["p0"], own.scene(1, 3))

    def test_one_folder_linked_twice_is_two_folders_and_shared_pictures_are_told(self, own: Any) -> None:
        own.write(THREE)
        for folder in ("images", "labels"):
            (own.root / folder).rename(own.root / f"{folder}-all")
            (own.root / folder).mkdir()
            for split in ("train", "val"):
                (own.root / folder / split).symlink_to(own.root / f"{folder}-all")
        done = own.prepare()
        assert done.pairs == {"train": 6, "val": 6, "test": 0}
        assert any(warning.startswith("split overlap: ") for warning in done.warnings)

    def test_a_linked_root(self, own: Any, tmp_path: Path) -> None:
        own.write(THREE)
        own.root.rename(tmp_path / "elsewhere")
        own.root.symlink_to(tmp_path / "elsewhere")
        own.expect(3)
