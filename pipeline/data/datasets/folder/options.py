"""The options of the dataset `folder`: how it is split, and what its labels are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.data.datasets.folder.classes import parse_classes
from pipeline.data.datasets.shared.dataset import SubsetOptions
from serving.contract.errors import UserError
from serving.contract.schema import Require


@dataclass(frozen=True)
class FolderOptions(SubsetOptions):
    """How a folder is split, and how its labels are read.

    Attributes:
        classes: the lines of classes.txt, where there is no such file.
        image_folder: name of the folder with the images, in the dataset's folder or in those of its splits; `.` for
            that folder itself.
        label_folder: the same for the labels; may be the same folder, where a suffix or an ending tells them apart.
        image_suffix: what the names of images end in, before the ending, and which is no part of the name that image
            and label share: `_sat`.
        label_suffix: the same for labels: `_mask`.
        image_ending: only images with this ending are taken, such as `.jpg`. Empty: every ending of an image.
        label_ending: the same for labels.
        background: where labels are masks of objects, the class of pixels that are in none of them, or `void`. Null:
            the class called background, if there is one.
        overlap: pixels in the masks of two classes: `refuse` them, take them as `void`, or as the class that comes
            `last` in classes.txt.
        val_fraction: where nothing else says what the splits are: share of the images that go to val, at least one.
        test_fraction: the same for test.
        sequence_pattern: regular expression with one group, searched in the file name: what it finds is the image's
            sequence, which stays whole in one split. Empty: every image stands for itself.
        labels: whether labels are told by their numbers or by their colours. `auto` takes what can be meant in one way
            only, and asks where it cannot tell.
        void_values: numbers that are void. 255 is, unless classes.txt gives it to a class.
        void_colours: colours that are void.
        transparent: pixels of a colour label that are not opaque: `refuse` such labels, or take the pixels as `void`.
        mat_variable: name of the label map in .mat files; null where it is the only one.
    """

    classes: tuple[str, ...] = ()
    image_folder: str = "images"
    label_folder: str = "labels"
    image_suffix: str = ""
    label_suffix: str = ""
    image_ending: str = ""
    label_ending: str = ""
    background: str | None = None
    overlap: Literal["refuse", "void", "last"] = "refuse"
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    sequence_pattern: str = ""
    labels: Literal["auto", "numbers", "colours"] = "auto"
    void_values: tuple[int, ...] = ()
    void_colours: tuple[tuple[int, int, int], ...] = ()
    transparent: Literal["refuse", "void"] = "refuse"
    mat_variable: str | None = None

    def check(self, require: Require) -> None:
        """See `SubsetOptions.check`."""
        super().check(require)
        if self.classes:
            try:
                parse_classes(self.classes, "classes")
            except UserError as error:
                for line in str(error).splitlines():
                    require(False, line)
        require(0 < self.val_fraction < 1, f"val_fraction: expected between 0 and 1, got {self.val_fraction}")
        require(0 <= self.test_fraction < 1, f"test_fraction: expected in [0, 1), got {self.test_fraction}")
        require(
            self.val_fraction + self.test_fraction < 1,
            "val_fraction + test_fraction: expected below 1, so that images are left to train on",
        )
        try:
            groups = re.compile(self.sequence_pattern).groups if self.sequence_pattern else 1
        except re.error as error:
            require(False, f"sequence_pattern: not a regular expression ({error})")
        else:
            require(groups == 1, f"sequence_pattern: expected one (group), got {groups}")
        for name in ("image_ending", "label_ending"):
            ending = getattr(self, name)
            require(not ending or ending[0] == ".", f"{name}: expected an ending such as .png, got {ending!r}")
        require(
            bool(self.image_folder and self.label_folder),
            "image_folder and label_folder: expected the name of a folder, or .",
        )
        apart = self.image_suffix != self.label_suffix or self.image_ending != self.label_ending
        require(
            self.image_folder != self.label_folder or apart,
            f"image_folder and label_folder are both {self.image_folder!r}: label_suffix or label_ending must tell "
            "images and labels apart",
        )
        require(
            all(-1 <= value <= 65535 for value in self.void_values),
            f"void_values: expected -1 to 65535, got {list(self.void_values)}",
        )
        require(
            all(0 <= part <= 255 for colour in self.void_colours for part in colour),
            f"void_colours: expected [red, green, blue] up to 255 each, got {[list(one) for one in self.void_colours]}",
        )
