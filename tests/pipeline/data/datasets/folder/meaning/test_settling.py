"""Labels mean what their owner means: taken where it is certain, refused with the line to write where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.contract.errors import UserError

TWO = ("background", "object")
THREE = ("ground", "disc", "bar")
COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)
COLOURED = ("ground 0 0 0", "disc 200 0 0", "bar 0 0 200")

Save = Callable[[np.ndarray, Path, int], object]


def values(*numbers: int, mode: str | None = None, suffix: str = ".png", dtype: type = np.uint8) -> Save:
    """Save class k as the k-th number."""

    def save(ids: np.ndarray, path: Path, index: int) -> None:
        picture = Image.fromarray(np.array(numbers, dtype)[ids])
        (picture.convert(mode) if mode else picture).save(path.with_suffix(suffix))

    return save


def drawn(mode: str = "RGB", suffix: str = ".png") -> Save:
    def save(ids: np.ndarray, path: Path, index: int) -> None:
        Image.fromarray(COLOURS[ids]).convert(mode).save(path.with_suffix(suffix))

    return save


def with_palette(*colours: tuple[int, int, int], suffix: str = ".png") -> Save:
    """Save class k as index k, shown in the k-th colour."""

    def save(ids: np.ndarray, path: Path, index: int) -> None:
        picture = Image.fromarray(ids)
        picture.putpalette([part for colour in colours for part in colour])
        picture.save(path.with_suffix(suffix))

    return save


def numbered_anew(ids: np.ndarray, path: Path, index: int) -> None:
    """Index of a colour: another one in every file, as by a program that reduces a drawing to its colours."""
    order = np.roll([0, 1, 2], index)
    picture = Image.fromarray(np.argsort(order).astype(np.uint8)[ids])
    picture.putpalette(COLOURS[order].tobytes())
    picture.save(path.with_suffix(".png"))


def refused(own: Any, *words: str, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        own.prepare(**options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return str(caught.value)


class TestBinaryMasks:
    @pytest.mark.parametrize(
        "save",
        [
            values(0, 255),
            values(0, 255, mode="RGB"),
            values(0, 255, mode="RGBA"),
            values(0, 255, mode="LA"),
            values(0, 255, mode="1"),
            values(0, 255, suffix=".tif"),
            values(0, 255, suffix=".bmp"),
            values(0, 255, dtype=np.uint16),
            values(0, 1),
            values(0, 1, mode="RGB"),
            values(0, 1, dtype=np.uint16),
        ],
    )
    def test_0_and_255_or_1_are_two_classes(self, own: Any, save: Save) -> None:
        own.write(TWO, save).expect(2)

    def test_0_and_255_are_told(self, own: Any) -> None:
        done = own.write(TWO, values(0, 255)).prepare()
        assert done.notes == ("label values: 0 is 'background' and 255 is 'object': two classes, and no 1",)
        assert done.warnings == ()

    def test_bits_and_bytes_may_be_mixed(self, own: Any) -> None:
        own.write(
            TWO, lambda ids, path, index: values(0, 255, mode="1" if index % 2 else None)(ids, path, index)
        ).expect(2)

    def test_a_mask_without_object_or_without_background(self, own: Any) -> None:
        labels = [np.zeros((12, 16), np.uint8), np.ones((12, 16), np.uint8)]
        found = own.write(TWO, values(0, 255), labels=lambda index: labels[index % 2]).read()
        for name, ids in found.items():
            np.testing.assert_array_equal(ids, labels[int(name[1:]) % 2])

    def test_void_stays_void_beside_both_classes(self, own: Any) -> None:
        def with_void(index: int) -> np.ndarray:
            ids = np.zeros((12, 16), np.uint8)
            ids[3:6] = 1
            ids[0] = 255
            return ids

        found = own.write(TWO, labels=with_void).read()
        np.testing.assert_array_equal(found["p0"], with_void(0))

    def test_0_255_here_and_0_1_there_is_asked(self, own: Any) -> None:
        own.write(TWO, lambda ids, path, index: values(0, 255 if index < 3 else 1)(ids, path, index))
        refused(own, "some labels hold 255 (such as labels/p", "is 255 void, or 'object'", "options.labels: numbers")
        found = own.read(labels="numbers")
        assert {int(ids.max()) for name, ids in found.items() if name in ("p0", "p1", "p2")} == {255}

    def test_white_and_black_may_be_the_colours_of_classes(self, own: Any) -> None:
        """The first line is the white one: as a number, 255 would be the second class, or void."""
        own.write(("object 255 255 255", "background 0 0 0"), values(255, 0)).expect(2)

    def test_three_classes_in_0_and_255_are_asked(self, own: Any) -> None:
        own.write(THREE, values(0, 255, 255))
        refused(own, "0 and 255 and nothing else", "ground 0, disc 255")

    def test_labels_that_are_255_throughout_are_none(self, own: Any) -> None:
        own.write(TWO, values(255, 255))
        refused(own, "train: none of its", "has a labelled pixel, all is void")

    def test_one_class_alone_is_nothing_to_tell_apart(self, own: Any) -> None:
        own.write(TWO, values(0, 0))
        refused(own, "train: all labelled pixels are 'background'")


class TestNamedValues:
    LINES = ("background 0", "cytoplasm 128", "nucleus 255")

    @pytest.mark.parametrize("mode", [None, "RGB", "P"])
    def test_lines_may_name_the_values(self, own: Any, mode: str | None) -> None:
        own.write(self.LINES, values(0, 128, 255, mode=mode)).expect(3)
        assert any("cytoplasm 128, nucleus 255" in note for note in own.prepare().notes)

    def test_numbers_before_the_names(self, own: Any) -> None:
        own.write(("1 ground", "2 disc", "3 bar"), values(1, 2, 3)).expect(3)

    def test_values_of_16_bits(self, own: Any) -> None:
        own.write(("ground 100", "disc 1000", "bar 60000"), values(100, 1000, 60000, dtype=np.uint16)).expect(3)

    def test_values_that_the_lines_do_not_name_are_unknown(self, own: Any) -> None:
        own.write(("1 ground", "2 disc", "3 bar"), values(0, 1, 2))
        refused(own, "unknown label 0: ", "expected 1 to 3, 255", "classes.txt names the values", "0, 1, 2")

    def test_unnamed_values_of_one_per_class_are_shown_as_lines(self, own: Any) -> None:
        own.write(THREE, values(0, 100, 200))
        refused(own, "unknown label 100: ", "in 6 files, such as labels/p", "ground 0, disc 100, bar 200")

    def test_void_values(self, own: Any) -> None:
        def with_void(index: int) -> np.ndarray:
            ids = own.scene(index, 3)
            ids[0], ids[1] = 7, 255
            return ids

        own.write(THREE, labels=with_void)
        refused(own, "unknown label 7: 96 pixels in 6 files", "void_values: [7]")
        for name, ids in own.read(void_values=[7]).items():
            drawn_ids = with_void(int(name[1:]))
            np.testing.assert_array_equal(ids, np.where(drawn_ids == 7, 255, drawn_ids))


class TestCountingFromOne:
    def test_every_class_from_one(self, own: Any) -> None:
        own.write(THREE, values(1, 2, 3))
        refused(own, "unknown label 3: ", "Do the labels count from 1?", "ground 1, disc 2, bar 3")

    def test_void_0_and_classes_from_one(self, own: Any) -> None:
        def with_void(index: int) -> np.ndarray:
            ids = own.scene(index, 3) + np.uint8(1)
            ids[0] = 0
            return ids

        own.write(THREE, labels=with_void)
        refused(own, "4 numbers for 3 classes", "void_values: [0]", "ground 1, disc 2, bar 3")
        own.root.joinpath("classes.txt").write_text("ground 1\ndisc 2\nbar 3\n")
        assert (own.read(void_values=[0])["p0"] == 255).sum() == 16

    def test_the_last_class_does_not_occur(self, own: Any) -> None:
        own.write(THREE, values(1, 2, 2))
        refused(
            own, "no label holds a 0", "do they count from 1?", "ground 1, disc 2, bar 3", "options.labels: numbers"
        )
        done = own.prepare(labels="numbers")
        assert done.warnings == ("unused class: ground: no pixel in any split",)

    def test_named_values_settle_it(self, own: Any) -> None:
        own.write(("ground 1", "disc 2", "bar 3"), values(1, 2, 3)).expect(3)

    def test_255_for_a_class_that_does_not_occur_otherwise(self, own: Any) -> None:
        own.write(THREE, values(0, 1, 255))
        refused(own, "hold 0, 1 and 255, and no 2", "bar 255", "options.labels: numbers")
        assert own.prepare(labels="numbers").warnings == ("unused class: bar: no pixel in any split",)


class TestColours:
    @pytest.mark.parametrize(("mode", "suffix"), [("RGB", ".png"), ("RGBA", ".png"), ("RGB", ".bmp"), ("RGB", ".tif")])
    def test_colours_of_classes_txt(self, own: Any, mode: str, suffix: str) -> None:
        own.write(COLOURED, drawn(mode, suffix)).expect(3)

    def test_a_colour_that_is_no_class_is_counted_and_named(self, own: Any) -> None:
        own.write(("ground 0 0 0", "disc 200 0 0", "bar 0 0 201"), drawn())
        refused(
            own,
            "unknown label colour (0, 0, 200): ",
            "pixels in 6 files, such as labels/p",
            "void_colours: [[0, 0, 200]]",
        )

    def test_void_colours(self, own: Any) -> None:
        own.write(("ground 0 0 0", "disc 200 0 0", "bar 1 1 1"), drawn())
        done = own.prepare(void_colours=[[0, 0, 200]])
        assert done.warnings == ("unused class: bar: no pixel in any split",)

    def test_colours_without_any_in_classes_txt_are_listed(self, own: Any) -> None:
        own.write(THREE, drawn())
        refused(own, "6 of 6 labels hold colours", "none for ground, disc, bar", "(200, 0, 0): ", "road 128 64 128")

    def test_soft_edges_are_refused(self, own: Any) -> None:
        def soft(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(COLOURS[ids]).resize((40, 30), Image.Resampling.BICUBIC).resize((16, 12))
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, soft)
        refused(own, "unknown label colour", "soft edges")

    def test_two_classes_of_one_colour(self, own: Any) -> None:
        own.write(("ground 0 0 0", "disc 200 0 0", "bar 200 0 0"), drawn())
        refused(own, "one colour to several classes: disc, bar")

    def test_a_grey_label_among_coloured_ones_is_a_colour(self, own: Any) -> None:
        """Optimisers store a picture of black and white without its colours."""
        lines = ("ground 0 0 0", "disc 200 0 0", "bar 255 255 255")

        def save(ids: np.ndarray, path: Path, index: int) -> None:
            if index % 2:
                Image.fromarray(np.array([0, 0, 255], np.uint8)[ids]).save(path.with_suffix(".png"))
            else:
                Image.fromarray(np.array([[0, 0, 0], [200, 0, 0], [255] * 3], np.uint8)[ids]).save(
                    path.with_suffix(".png")
                )

        found = own.write(lines, save).read()
        assert all(set(np.unique(ids)) == ({0, 2} if int(name[1:]) % 2 else {0, 1, 2}) for name, ids in found.items())

    def test_numbers_among_colours_are_refused(self, own: Any) -> None:
        own.write(COLOURED, lambda ids, path, index: (drawn() if index else values(0, 1, 2))(ids, path, index))
        refused(own, "unknown label colour (1, 1, 1): ")

    def test_void_and_a_class_of_one_colour(self, own: Any) -> None:
        own.write(COLOURED, drawn())
        refused(own, "void_colours holds the colour of ground", void_colours=[[0, 0, 0]])

    def test_equal_channels_are_numbers_unless_colours_are_given(self, own: Any) -> None:
        own.write(THREE, values(0, 1, 2, mode="RGB")).expect(3)

    def test_numbers_that_are_colours_too(self, own: Any) -> None:
        own.write(("ground 2 2 2", "disc 1 1 1", "bar 0 0 0"), values(0, 1, 2))
        refused(own, "both numbers of classes and their colours", "options.labels: numbers, or colours")
        own.expect(3, labels="numbers")


class TestPalettes:
    VIEWER = ((9, 9, 9), (255, 0, 0), (0, 255, 0))

    def test_numbered_anew_in_every_file_is_read_by_colour(self, own: Any) -> None:
        own.write(COLOURED, numbered_anew).expect(3)
        assert any("read by the colours of their palettes" in note for note in own.prepare().notes)

    def test_numbered_anew_without_colours_in_classes_txt(self, own: Any) -> None:
        own.write(THREE, numbered_anew)
        refused(own, "the palettes of the labels contradict each other: ", "labels: colours", "labels: numbers")

    def test_numbered_anew_with_colours_that_classes_txt_lacks(self, own: Any) -> None:
        own.write(("ground 0 0 0", "disc 200 0 0", "bar 0 0 201"), numbered_anew)
        refused(own, "contradict each other", "colours that are not in classes.txt: (0, 0, 200): ")

    @pytest.mark.parametrize("suffix", [".png", ".gif", ".tif", ".bmp"])
    def test_one_palette_for_the_eye_is_ignored(self, own: Any, suffix: str) -> None:
        own.write(THREE, with_palette(*self.VIEWER, suffix=suffix)).expect(3)
        assert own.prepare().warnings == ()

    def test_a_palette_of_the_classes_colours_agrees(self, own: Any) -> None:
        own.write(COLOURED, with_palette(*map(tuple, COLOURS.tolist()))).expect(3)
        assert own.prepare().notes == own.prepare().warnings == ()

    def test_other_colours_than_in_classes_txt_are_warned_of_until_confirmed(self, own: Any) -> None:
        own.write(COLOURED, with_palette(*self.VIEWER)).expect(3)
        (warning,) = own.prepare().warnings
        assert warning.startswith("palette: labels are read by their indices") and "labels: numbers" in warning
        assert own.prepare(labels="numbers").warnings == ()

    def test_a_palette_in_another_order_than_classes_txt_is_asked(self, own: Any) -> None:
        own.write(COLOURED, with_palette((0, 0, 200), (0, 0, 0), (200, 0, 0)))
        refused(own, "by its number it is", "by its colour in classes.txt", "labels: colours", "labels: numbers")
        own.expect(3, labels="numbers")
        for name, ids in own.read(labels="colours").items():
            np.testing.assert_array_equal(ids, np.array([2, 0, 1])[own.scene(int(name[1:]), 3)])

    def test_one_file_of_another_order(self, own: Any) -> None:
        """Two files agree with classes.txt; the third has its colours exchanged."""
        right = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
        wrong = [right[0], right[2], right[1]]

        def save(ids: np.ndarray, path: Path, index: int) -> None:
            if index == 4:
                with_palette(*wrong)(np.array([0, 2, 1], np.uint8)[ids], path, index)
            else:
                with_palette(*right)(ids, path, index)

        own.write(COLOURED, save).expect(3)

    def test_indices_beyond_the_classes_are_read_by_colour(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(ids + 10)
            picture.putpalette([0] * 30 + COLOURS.reshape(-1).tolist())
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save).expect(3)

    def test_a_colour_at_two_indices_of_different_palettes(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            shown = [(0, 0, 0), (200, 0, 0), (0, 0, 200)] if index % 2 else [(0, 0, 0), (9, 9, 9), (200, 0, 0)]
            with_palette(*shown)(np.where(ids == 1, 1 if index % 2 else 2, 0).astype(np.uint8), path, index)

        own.write(THREE, save)
        refused(own, "(200, 0, 0) is index 1 in labels/p", "and index 2 in labels/p")

    def test_grey_ramps_say_nothing(self, own: Any) -> None:
        ramp = [(index, index, index) for index in range(256)]
        own.write(THREE, with_palette(*ramp)).expect(3)


class TestOneBit:
    BLACK_AND_WHITE = ("background 0 0 0", "object 255 255 255")

    @pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
    def test_black_and_white_of_classes_txt(self, own: Any, suffix: str) -> None:
        own.write(self.BLACK_AND_WHITE, values(0, 255, mode="1", suffix=suffix)).expect(2)

    def test_files_of_one_bit_among_those_of_eight(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            values(0, 255, mode="1" if index % 2 else None)(ids, path, index)

        own.write(self.BLACK_AND_WHITE, save)
        refused(own, "the values 0, 1, 255 are both", "labels: numbers, or colours")
        own.expect(2, labels="colours")

    def test_the_other_way_round_is_asked(self, own: Any) -> None:
        own.write(tuple(reversed(self.BLACK_AND_WHITE)), values(255, 0, mode="1"))
        refused(own, "are both numbers of classes and their colours", "labels: numbers, or colours")
        own.expect(2, labels="colours")


class TestTransparency:
    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_pixels_that_are_not_opaque_are_asked_about(self, own: Any, mode: str) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(COLOURS[ids] if mode == "RGBA" else ids).convert(mode)
            alpha = np.where(ids == 1, 0, 255).astype(np.uint8)
            picture.putalpha(Image.fromarray(alpha))
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED if mode == "RGBA" else THREE, save)
        refused(own, "pixels of 6 labels are not opaque", "options.transparent: void")
        for name, ids in own.read(transparent="void").items():
            np.testing.assert_array_equal(ids == 255, own.scene(int(name[1:]), 3) == 1)

    @pytest.mark.parametrize("void", [-1, 300])
    def test_void_values_that_no_such_file_holds(self, own: Any, void: int) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(ids).convert("LA")
            picture.putalpha(Image.fromarray(np.where(ids == 1, 0, 255).astype(np.uint8)))
            picture.save(path.with_suffix(".png"))

        own.write(THREE, save)
        for name, ids in own.read(transparent="void", void_values=[void]).items():
            np.testing.assert_array_equal(ids == 255, own.scene(int(name[1:]), 3) == 1)

    def test_half_transparent_edges_are_asked_about(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(COLOURS[ids]).convert("RGBA")
            picture.putalpha(Image.fromarray(np.where(ids == 1, 128, 255).astype(np.uint8)))
            picture.save(path.with_suffix(".png"))

        own.write(COLOURED, save)
        refused(own, "not opaque")

    def test_a_transparent_index_is_an_index(self, own: Any) -> None:
        def save(ids: np.ndarray, path: Path, index: int) -> None:
            picture = Image.fromarray(ids)
            picture.putpalette(COLOURS.tobytes())
            picture.save(path.with_suffix(".png"), transparency=0)

        own.write(THREE, save).expect(3)
