"""What every label id of the public datasets becomes, and which are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.data.datasets.ade20k.dataset import ADE20K
from pipeline.data.datasets.camvid.dataset import CamVid
from pipeline.data.datasets.camvid32.dataset import COLOURS, CamVid32, split_of
from pipeline.data.datasets.cityscapes.dataset import Cityscapes
from pipeline.data.datasets.coco_stuff.dataset import CLASSES as COCO_CLASSES
from pipeline.data.datasets.coco_stuff.dataset import NAMES as COCO_NAMES
from pipeline.data.datasets.coco_stuff.dataset import UNUSED, CocoStuff
from pipeline.data.datasets.pascal_context.dataset import CLASSES as CONTEXT_CLASSES
from pipeline.data.datasets.pascal_context.dataset import PascalContext
from pipeline.data.datasets.shared.dataset import Dataset
from pipeline.data.datasets.shared.labels import LabelError
from pipeline.data.datasets.shared.palettes import voc_colours
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare


def prepared(name: str, root: Path, folder: Path, **options: object) -> Prepared:
    prepare(PrepareConfig(dataset=name, root=str(root), options=options), folder, strict=True)
    return load_prepared(folder, root)


def decoded_ids(dataset: Dataset, path: Path, ids: list[int]) -> dict[int, int]:
    """Source id -> train id, as `path` decodes."""
    return dict(zip(ids, dataset.decode_label(path).reshape(-1).tolist(), strict=False))


class TestCityscapes:
    def test_every_id_agrees_with_the_benchmark(self, replicas: Any, tmp_path: Path) -> None:
        from cityscapesscripts.helpers.labels import labels

        dataset = Cityscapes(replicas.cityscapes(tmp_path), {})
        ids = list(range(34))
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, ids)
        official = {entry.id: entry for entry in labels if entry.id >= 0}
        assert sorted(official) == ids
        for source, entry in official.items():
            assert train_ids[source] == entry.trainId, entry.name
            if entry.trainId != 255:
                assert dataset.class_names[entry.trainId] == entry.name
                assert dataset.palette[entry.trainId] == entry.color

    @pytest.mark.parametrize("unknown", [34, 100, 255])
    def test_other_ids_are_refused(self, replicas: Any, tmp_path: Path, unknown: int) -> None:
        path = replicas.label(tmp_path / "x_gtFine_labelIds.png", [[7, unknown]])
        with pytest.raises(LabelError, match=f"unknown label {unknown}"):
            Cityscapes(tmp_path, {}).decode_label(path)

    def test_sequences_are_recordings(self, replicas: Any, tmp_path: Path) -> None:
        dataset = Cityscapes(replicas.cityscapes(tmp_path), {})
        assert [pair.sequence for pair in dataset.pairs("val")] == ["frankfurt_000000", "frankfurt_000001"]
        assert [pair.name for pair in dataset.pairs("train")] == ["aachen_000000_000019", "zurich_000121_000019"]

    def test_placeholders_of_the_test_split_are_not_evaluated_on(self, replicas: Any, tmp_path: Path) -> None:
        assert Cityscapes(replicas.cityscapes(tmp_path), {}).pairs("test") == []

    def test_a_missing_label_is_looked_for_in_its_city(self, replicas: Any, tmp_path: Path) -> None:
        dataset = Cityscapes(replicas.cityscapes(tmp_path), {})
        shutil.rmtree(tmp_path / "gtFine/train/zurich")
        expected = tmp_path / "gtFine/train/zurich/zurich_000121_000019_gtFine_labelIds.png"
        assert dataset.pairs("train")[1].label == expected


class TestADE20K:
    def test_every_id(self, replicas: Any, tmp_path: Path) -> None:
        dataset = ADE20K(replicas.ade20k(tmp_path), {})
        ids = list(range(151))
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, ids)
        assert train_ids == {0: 255, **{source: source - 1 for source in ids[1:]}}

    def test_names_stand_in_the_order_of_the_release(self) -> None:
        names = ADE20K.class_names
        assert len(names) == 150
        for source, name in {
            1: "wall",
            4: "floor",
            13: "person",
            21: "car",
            81: "bus",
            131: "screen",
            150: "flag",
        }.items():
            assert names[source - 1] == name

    def test_ids_above_150_are_refused(self, replicas: Any, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="unknown label 151; expected 0 to 150"):
            ADE20K(tmp_path, {}).decode_label(replicas.label(tmp_path / "a.png", [[151]]))

    def test_a_root_one_folder_too_high(self, replicas: Any, tmp_path: Path) -> None:
        replicas.ade20k(tmp_path / "ADEChallengeData2016")
        problems = ADE20K(tmp_path, {}).layout_problems()
        assert problems[-1] == f"point prepare.root at {tmp_path / 'ADEChallengeData2016'}"


class TestPascalContext:
    def test_every_one_of_the_459_ids(self, replicas: Any, tmp_path: Path) -> None:
        dataset = PascalContext(replicas.pascal_context(tmp_path), {})
        ids = list(range(460))
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, ids)
        kept = [source for source in ids if train_ids[source] != 255]
        assert len(kept) == 59
        assert [train_ids[source] for source in kept] == list(range(59))
        assert {source: dataset.class_names[train_ids[source]] for source in kept} == CONTEXT_CLASSES

    def test_the_names_are_in_the_order_of_the_alphabet(self) -> None:
        """The 459 names are, so the 59 must be: a name at a wrong id would stand out of order."""
        names = list(CONTEXT_CLASSES.values())
        assert names == sorted(names)
        assert list(CONTEXT_CLASSES) == sorted(CONTEXT_CLASSES)

    def test_id_460_is_refused(self, replicas: Any, tmp_path: Path) -> None:
        path = replicas.matlab(tmp_path / "a.mat", "LabelMap", [[2, 460]])
        with pytest.raises(LabelError, match="unknown label 460"):
            PascalContext(tmp_path, {}).decode_label(path)

    def test_converted_labels_are_read_without_the_released_ones(self, replicas: Any, tmp_path: Path) -> None:
        root = replicas.pascal_context(tmp_path)
        shutil.rmtree(root / "trainval")
        ids = list(range(60))
        for name in ("2008_000002", "2008_000003", "2008_000009"):
            replicas.label(root / "SegmentationClassContext" / f"{name}.png", replicas.grid(ids))
        dataset = PascalContext(root, {})
        assert dataset.layout_problems() == []
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, ids)
        assert train_ids == {0: 255, **{source: source - 1 for source in ids[1:]}}

    def test_both_label_forms_decode_alike(self, replicas: Any, tmp_path: Path) -> None:
        dataset = PascalContext(tmp_path, {})
        sources = list(CONTEXT_CLASSES)
        released = dataset.decode_label(replicas.matlab(tmp_path / "a.mat", "LabelMap", [sources]))
        converted = dataset.decode_label(replicas.label(tmp_path / "a.png", [list(range(1, 60))]))
        np.testing.assert_array_equal(released, converted)

    def test_lists_of_the_detail_api_come_first(self, replicas: Any, tmp_path: Path) -> None:
        root = replicas.pascal_context(tmp_path)
        (root / "ImageSets/SegmentationContext").mkdir()
        (root / "ImageSets/SegmentationContext/train.txt").write_text("2008_000003\n")
        assert [pair.name for pair in PascalContext(root, {}).pairs("train")] == ["2008_000003"]

    def test_missing_lists_are_named(self, replicas: Any, tmp_path: Path) -> None:
        root = replicas.pascal_context(tmp_path)
        (root / "ImageSets/Main/val.txt").unlink()
        (problem,) = PascalContext(root, {}).layout_problems()
        assert problem == f"{root / 'ImageSets/Main/val.txt'}: missing file (names of the images of val)"

    def test_a_root_above_the_devkit(self, replicas: Any, tmp_path: Path) -> None:
        replicas.pascal_context(tmp_path / "VOCdevkit" / "VOC2010")
        assert PascalContext(tmp_path, {}).layout_problems()[-1].endswith("VOCdevkit/VOC2010")


class TestCocoStuff:
    def test_every_value_of_the_164k_maps(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CocoStuff(replicas.coco_164k(tmp_path), {})
        values = [*range(182), 255]
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, values)
        assert train_ids[255] == 255
        for value in range(182):
            name = COCO_NAMES[value + 1]
            if name in UNUSED:
                assert train_ids[value] == 255
            else:
                assert dataset.class_names[train_ids[value]] == name
        assert sorted(train for train in train_ids.values() if train != 255) == list(range(171))

    def test_every_value_of_the_10k_files(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CocoStuff(replicas.coco_10k(tmp_path), {"release": "10k"})
        values = list(range(183))
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, values)
        assert train_ids[0] == 255
        for value, name in COCO_NAMES.items():
            assert train_ids[value] == (255 if name in UNUSED else dataset.class_names.index(name))

    def test_the_published_ids(self) -> None:
        assert len(COCO_NAMES) == 182 and len(COCO_CLASSES) == 171
        unused = [index for index, name in COCO_NAMES.items() if name in UNUSED]
        assert unused == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91]
        known = {1: "person", 13: "stop sign", 90: "toothbrush", 92: "banner", 128: "house", 149: "road", 182: "wood"}
        assert {index: COCO_NAMES[index] for index in known} == known

    def test_other_values_are_refused(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CocoStuff(tmp_path, {})
        with pytest.raises(LabelError, match="unknown label 182; expected 0 to 181, 255"):
            dataset.decode_label(replicas.label(tmp_path / "a.png", [[0, 182]]))
        with pytest.raises(LabelError, match="unknown label 183"):
            dataset.decode_label(replicas.matlab(tmp_path / "a.mat", "S", [[183]], np.uint8))

    def test_the_other_folder_name_and_converted_files_beside(self, replicas: Any, tmp_path: Path) -> None:
        root = replicas.coco_164k(tmp_path)
        (root / "annotations").rename(root / "stuffthingmaps")
        (root / "annotations").mkdir()
        (root / "annotations/instances_train2017.json").write_text("{}")
        replicas.label(root / "stuffthingmaps/train2017/000000000009_labelTrainIds.png", [[0]])
        dataset = CocoStuff(root, {})
        assert dataset.layout_problems() == []
        assert [pair.name for pair in dataset.pairs("train")] == ["000000000009", "000000000025"]

    def test_maps_with_a_palette(self, replicas: Any, tmp_path: Path) -> None:
        path = replicas.label(tmp_path / "a.png", [[0, 1, 255]], mode="P")
        np.testing.assert_array_equal(CocoStuff(tmp_path, {}).decode_label(path), [[0, 1, 255]])

    def test_matlab_doubles_are_whole_numbers(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CocoStuff(tmp_path, {"release": "10k"})
        whole = replicas.matlab(tmp_path / "whole.mat", "S", [[0, 1.0, 182.0]], np.float64)
        np.testing.assert_array_equal(dataset.decode_label(whole), [[255, 0, 170]])
        with pytest.raises(LabelError, match="holds fractions"):
            dataset.decode_label(replicas.matlab(tmp_path / "half.mat", "S", [[0.5]], np.float64))

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("T", [[1]], "no variable 'S'"),
            ("S", [[[1, 2]], [[3, 4]]], "of shape"),
            ("S", [[1 + 2j]], "complex"),
            ("S", [["text"]], "expected whole numbers"),
        ],
    )
    def test_other_matlab_files(self, tmp_path: Path, variable: str, value: object, message: str) -> None:
        savemat(tmp_path / "a.mat", {variable: np.array(value)})
        with pytest.raises(LabelError, match=message):
            CocoStuff(tmp_path, {"release": "10k"}).decode_label(tmp_path / "a.mat")

    def test_matlab_7_3_is_named(self, tmp_path: Path) -> None:
        """Version 1.0 of the 10k release was HDF5, with other ids."""
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        (tmp_path / "a.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n" + bytes(600))
        with pytest.raises(LabelError, match=r"MATLAB 7\.3"):
            CocoStuff(tmp_path, {"release": "10k"}).decode_label(tmp_path / "a.mat")

    def test_an_unknown_release(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="release: expected one of 164k, 10k"):
            PrepareConfig(dataset="coco_stuff", root=str(tmp_path), options={"release": "2014"})


class TestCamVid32:
    def test_every_colour(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CamVid32(replicas.camvid32(tmp_path), {})
        train_ids = dataset.decode_label(dataset.pairs("train")[0].label).reshape(-1)
        assert train_ids[0] == 255
        for position, (name, (colour, _)) in enumerate(COLOURS.items(), start=1):
            assert dataset.class_names[train_ids[position]] == name
            assert dataset.palette[train_ids[position]] == colour
        assert len(COLOURS) + 1 == 32

    def test_every_colour_in_the_eleven_classes(self, replicas: Any, tmp_path: Path) -> None:
        dataset = CamVid32(replicas.camvid32(tmp_path), {"classes": 11})
        assert dataset.class_names == CamVid.class_names
        train_ids = dataset.decode_label(dataset.pairs("train")[0].label).reshape(-1)
        for position, (_, merged) in enumerate(COLOURS.values(), start=1):
            assert CamVid.class_names[train_ids[position]] == merged
        assert {merged for _, merged in COLOURS.values()} == set(CamVid.class_names)

    def test_other_colours_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a_L.png"
        Image.new("RGB", (4, 4), (1, 2, 3)).save(path)
        with pytest.raises(LabelError, match=r"unknown label colour \(1, 2, 3\)"):
            CamVid32(tmp_path, {}).decode_label(path)

    def test_split_folders_are_the_split(self, replicas: Any, tmp_path: Path) -> None:
        for split, name in {"train": "0001TP_006690", "val": "0001TP_008550", "test": "0016E5_07959"}.items():
            replicas.image(tmp_path / split / f"{name}.png", 6, 6)
            (tmp_path / f"{split}_labels").mkdir()
            Image.fromarray(replicas.camvid_colours()).save(tmp_path / f"{split}_labels" / f"{name}_L.png")
        dataset = prepared("camvid32", tmp_path, tmp_path / "prepared")
        assert [dataset.split(split).name(0) for split in ("train", "val", "test")] == [
            "0001TP_006690",
            "0001TP_008550",
            "0016E5_07959",
        ]

    def test_number_of_classes(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="classes: expected one of 32, 11, got int 12"):
            PrepareConfig(dataset="camvid32", root=str(tmp_path), options={"classes": 12})

    def test_the_rule_of_the_split_gives_the_published_lists(self, camvid_root: Path) -> None:
        for split in ("train", "val", "test"):
            names = [path.stem for path in (camvid_root / split).iterdir()]
            assert {split_of(name) for name in names} == {split}


def test_voc_colours_are_those_of_the_devkit() -> None:
    colours = voc_colours(255)
    assert colours[:5] == ((128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128))
    assert colours[19] == (0, 64, 128)  # tv/monitor, the 20th class
    assert len(set(colours)) == 255
