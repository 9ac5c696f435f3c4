"""Each public dataset in a tiny replica of its layout: right folders, right encodings, every label id, bad cases."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from pipeline.config.prepare import PrepareConfig
from pipeline.data import DATASETS
from pipeline.data.ade20k import ADE20K
from pipeline.data.camvid import CamVid
from pipeline.data.camvid32 import COLOURS, CamVid32, split_of
from pipeline.data.cityscapes import Cityscapes
from pipeline.data.coco_stuff import CLASSES as COCO_CLASSES
from pipeline.data.coco_stuff import NAMES as COCO_NAMES
from pipeline.data.coco_stuff import UNUSED, CocoStuff
from pipeline.data.interface import Dataset
from pipeline.data.labels import LabelError, UnreadableError
from pipeline.data.palettes import voc_colours
from pipeline.data.pascal_context import CLASSES as CONTEXT_CLASSES
from pipeline.data.pascal_context import PascalContext
from pipeline.data.preparation import prepare
from pipeline.data.prepared import load_prepared
from serving.errors import UserError

Build = Callable[[Path], Path]


def image(path: Path, height: int = 6, width: int = 8, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(str(path).encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def label(path: Path, ids: object, mode: str = "L") -> Path:
    """An index image; mode P gives it a palette, as COCO-Stuff and ADE20K tools do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.asarray(ids, np.uint8))
    if mode == "P":
        picture.putpalette([value for index in range(256) for value in (255 - index, index, 9)])
    picture.save(path)
    return path


def matlab(path: Path, variable: str, ids: object, dtype: type = np.uint16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: np.asarray(ids, dtype), "captions": np.array(["a street"], dtype=object)})
    return path


def grid(ids: list[int]) -> np.ndarray:
    """All of `ids` in 6 rows, the last one repeated to fill them."""
    columns = -(-len(ids) // 6)
    return np.array(ids + [ids[-1]] * (6 * columns - len(ids))).reshape(6, columns)


def decoded_ids(dataset: Dataset, path: Path, ids: list[int]) -> dict[int, int]:
    """Source id -> train id, as `path` decodes."""
    return dict(zip(ids, dataset.decode_label(path).reshape(-1).tolist(), strict=False))


def prepared(name: str, root: Path, folder: Path, **options: object):
    prepare(PrepareConfig(dataset=name, root=str(root), options=options), folder, strict=True)
    return load_prepared(folder, root)


# --- the replicas -----------------------------------------------------------------------------------------------------


def build_cityscapes(root: Path) -> Path:
    for split, names in {
        "train": ["aachen_000000_000019", "zurich_000121_000019"],
        "val": ["frankfurt_000000_000294", "frankfurt_000001_000538"],
        "test": ["berlin_000000_000019"],
    }.items():
        for name in names:
            city = name.split("_")[0]
            image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 6, 6)
            stem = root / "gtFine" / split / city / f"{name}_gtFine"
            label(Path(f"{stem}_labelIds.png"), grid(list(range(34))))
            label(Path(f"{stem}_instanceIds.png"), np.zeros((6, 6)))  # published beside, not to be read
            Image.new("RGBA", (6, 6)).save(f"{stem}_color.png")
            Path(f"{stem}_polygons.json").write_text("{}")
    return root


def build_ade20k(root: Path) -> Path:
    ids = grid(list(range(151)))
    for folder, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for number in (1, 2):
            name = f"{prefix}_{number:08d}"
            mode = "L" if (folder, number) == ("training", 2) else "RGB"  # some of the images are grey
            image(root / "images" / folder / f"{name}.jpg", *ids.shape, mode=mode)
            label(root / "annotations" / folder / f"{name}.png", ids)
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n")
    return root


def build_pascal_context(root: Path) -> Path:
    ids = grid(list(range(460)))
    lists = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000009"]}
    for split, names in lists.items():
        for name in names:
            image(root / "JPEGImages" / f"{name}.jpg", *ids.shape)
            matlab(root / "trainval" / f"{name}.mat", "LabelMap", ids)
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    image(root / "JPEGImages" / "2010_999999.jpg")  # most of VOC has no context label
    return root


def build_coco_164k(root: Path) -> Path:
    ids = grid([*range(182), 255])
    for folder, numbers in (("train2017", (9, 25)), ("val2017", (139,))):
        for number in numbers:
            image(root / "images" / folder / f"{number:012d}.jpg", *ids.shape)
            label(root / "annotations" / folder / f"{number:012d}.png", ids)
    return root


def build_coco_10k(root: Path) -> Path:
    ids = grid(list(range(183)))
    lists = {"train": [77, 110], "test": [113]}
    (root / "imageLists").mkdir(parents=True)
    for split, numbers in lists.items():
        names = [f"COCO_train2014_{number:012d}" for number in numbers]
        (root / "imageLists" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            image(root / "images" / f"{name}.jpg", *ids.shape)
            matlab(root / "annotations" / f"{name}.mat", "S", ids, np.uint8)
    (root / "imageLists" / "all.txt").write_text("")
    return root


def camvid_colours() -> np.ndarray:
    colours = [(0, 0, 0), *(colour for colour, _ in COLOURS.values())]
    return np.array(colours + [colours[0]] * 4, np.uint8).reshape(6, 6, 3)


def build_camvid32(root: Path) -> Path:
    for name in ("0001TP_006690", "0006R0_f00930", "0016E5_07959", "0001TP_008550", "Seq05VD_f00000"):
        image(root / "701_StillsRaw_full" / f"{name}.png", 6, 6)
        path = root / "LabeledApproved_full" / f"{name}_L.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(camvid_colours()).save(path)
    return root


REPLICAS: dict[str, tuple[str, Build, dict[str, object]]] = {
    "cityscapes": ("cityscapes", build_cityscapes, {}),
    "ade20k": ("ade20k", build_ade20k, {}),
    "pascal_context": ("pascal_context", build_pascal_context, {}),
    "coco_stuff_164k": ("coco_stuff", build_coco_164k, {}),
    "coco_stuff_10k": ("coco_stuff", build_coco_10k, {"release": "10k"}),
    "camvid32": ("camvid32", build_camvid32, {}),
    "camvid32_11": ("camvid32", build_camvid32, {"classes": 11}),
}


class TestEveryReplica:
    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_prepare_reads_it_as_it_is(self, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = build(tmp_path / "root")
        dataset = prepared(name, root, tmp_path / "prepared", **options)
        expected = {"ade20k": (2, 2, 0), "cityscapes": (2, 2, 0), "camvid32": (2, 1, 2)}.get(name, (2, 1, 0))
        assert tuple(len(dataset.splits[split]) for split in ("train", "val", "test")) == expected
        train = dataset.split("train")
        assert min(dataset.class_pixels["train"]) > 0  # every class occurs in the replica, so every one was decoded
        for index in range(len(train)):
            assert train.read_image(index).shape[:2] == train.read_label(index).shape
            assert (train.read_label(index) == 255).any()

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_names_and_colours(self, replica: str, tmp_path: Path) -> None:
        name, _, options = REPLICAS[replica]
        dataset = DATASETS.resolve(name)(tmp_path, options)
        assert len(dataset.class_names) == len(set(dataset.class_names)) == len(dataset.palette)
        assert len(set(dataset.palette)) == len(dataset.palette)

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_every_missing_folder_is_named(self, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        complete = build(tmp_path / "complete")
        assert DATASETS.resolve(name)(complete, options).layout_problems() == []
        needed = [path for path in complete.rglob("*") if path.is_dir() and path.parent.name != "test"]
        for folder in needed:
            if any("test" in part for part in folder.relative_to(complete).parts) or _is_city(folder):
                continue
            broken = tmp_path / "broken"
            shutil.copytree(complete, broken)
            shutil.rmtree(broken / folder.relative_to(complete))
            problems = DATASETS.resolve(name)(broken, options).layout_problems()
            assert any(str(broken / folder.relative_to(complete)) in problem for problem in problems), folder
            with pytest.raises(UserError, match="layout"):
                prepare(PrepareConfig(dataset=name, root=str(broken), options=options), tmp_path / "prepared")
            shutil.rmtree(broken)

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_a_missing_root_and_a_root_without_anything(self, replica: str, tmp_path: Path) -> None:
        name, _, options = REPLICAS[replica]
        for root in (tmp_path / "none", tmp_path):
            problems = DATASETS.resolve(name)(root, options).layout_problems()
            assert problems and all(str(root) in problem for problem in problems)

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_a_missing_label_and_a_missing_image(self, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = build(tmp_path / "root")
        pairs = DATASETS.resolve(name)(root, options).pairs("train")
        pairs[0].label.unlink()
        pairs[1].image.unlink()
        with pytest.raises(UserError) as caught:
            prepare(PrepareConfig(dataset=name, root=str(root), options=options), tmp_path / "prepared")
        assert f"{pairs[0].label} (for {pairs[0].image.name})" in str(caught.value)
        assert f"{pairs[1].image} (for {pairs[1].label.name})" in str(caught.value)
        assert "2 problems" in str(caught.value)

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_a_truncated_label(self, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = build(tmp_path / "root")
        dataset = DATASETS.resolve(name)(root, options)
        path = dataset.pairs("train")[0].label
        content = path.read_bytes()
        for length in (0, 10, len(content) // 2):
            path.write_bytes(content[:length])
            with pytest.raises(UnreadableError, match=path.name):
                dataset.decode_label(path)


def _is_city(folder: Path) -> bool:
    return folder.parent.parent.name in ("leftImg8bit", "gtFine")


# --- label ids, dataset by dataset ------------------------------------------------------------------------------------


class TestCityscapes:
    def test_every_id_agrees_with_the_benchmark(self, tmp_path: Path) -> None:
        from cityscapesscripts.helpers.labels import labels

        dataset = Cityscapes(build_cityscapes(tmp_path), {})
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
    def test_other_ids_are_refused(self, tmp_path: Path, unknown: int) -> None:
        path = label(tmp_path / "x_gtFine_labelIds.png", [[7, unknown]])
        with pytest.raises(LabelError, match=f"unknown label {unknown}"):
            Cityscapes(tmp_path, {}).decode_label(path)

    def test_sequences_are_recordings(self, tmp_path: Path) -> None:
        dataset = Cityscapes(build_cityscapes(tmp_path), {})
        assert [pair.sequence for pair in dataset.pairs("val")] == ["frankfurt_000000", "frankfurt_000001"]
        assert [pair.name for pair in dataset.pairs("train")] == ["aachen_000000_000019", "zurich_000121_000019"]

    def test_placeholders_of_the_test_split_are_not_evaluated_on(self, tmp_path: Path) -> None:
        assert Cityscapes(build_cityscapes(tmp_path), {}).pairs("test") == []

    def test_a_missing_label_is_looked_for_in_its_city(self, tmp_path: Path) -> None:
        dataset = Cityscapes(build_cityscapes(tmp_path), {})
        shutil.rmtree(tmp_path / "gtFine/train/zurich")
        expected = tmp_path / "gtFine/train/zurich/zurich_000121_000019_gtFine_labelIds.png"
        assert dataset.pairs("train")[1].label == expected


class TestADE20K:
    def test_every_id(self, tmp_path: Path) -> None:
        dataset = ADE20K(build_ade20k(tmp_path), {})
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

    def test_ids_above_150_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LabelError, match="unknown label 151; expected 0 to 150"):
            ADE20K(tmp_path, {}).decode_label(label(tmp_path / "a.png", [[151]]))

    def test_a_root_one_folder_too_high(self, tmp_path: Path) -> None:
        build_ade20k(tmp_path / "ADEChallengeData2016")
        problems = ADE20K(tmp_path, {}).layout_problems()
        assert problems[-1] == f"point prepare.root at {tmp_path / 'ADEChallengeData2016'}"


class TestPascalContext:
    def test_every_one_of_the_459_ids(self, tmp_path: Path) -> None:
        dataset = PascalContext(build_pascal_context(tmp_path), {})
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

    def test_id_460_is_refused(self, tmp_path: Path) -> None:
        path = matlab(tmp_path / "a.mat", "LabelMap", [[2, 460]])
        with pytest.raises(LabelError, match="unknown label 460"):
            PascalContext(tmp_path, {}).decode_label(path)

    def test_converted_labels_are_read_without_the_released_ones(self, tmp_path: Path) -> None:
        root = build_pascal_context(tmp_path)
        shutil.rmtree(root / "trainval")
        ids = list(range(60))
        for name in ("2008_000002", "2008_000003", "2008_000009"):
            label(root / "SegmentationClassContext" / f"{name}.png", grid(ids))
        dataset = PascalContext(root, {})
        assert dataset.layout_problems() == []
        train_ids = decoded_ids(dataset, dataset.pairs("train")[0].label, ids)
        assert train_ids == {0: 255, **{source: source - 1 for source in ids[1:]}}

    def test_both_label_forms_decode_alike(self, tmp_path: Path) -> None:
        dataset = PascalContext(tmp_path, {})
        sources = list(CONTEXT_CLASSES)
        released = dataset.decode_label(matlab(tmp_path / "a.mat", "LabelMap", [sources]))
        converted = dataset.decode_label(label(tmp_path / "a.png", [list(range(1, 60))]))
        np.testing.assert_array_equal(released, converted)

    def test_lists_of_the_detail_api_come_first(self, tmp_path: Path) -> None:
        root = build_pascal_context(tmp_path)
        (root / "ImageSets/SegmentationContext").mkdir()
        (root / "ImageSets/SegmentationContext/train.txt").write_text("2008_000003\n")
        assert [pair.name for pair in PascalContext(root, {}).pairs("train")] == ["2008_000003"]

    def test_missing_lists_are_named(self, tmp_path: Path) -> None:
        root = build_pascal_context(tmp_path)
        (root / "ImageSets/Main/val.txt").unlink()
        (problem,) = PascalContext(root, {}).layout_problems()
        assert problem == f"{root / 'ImageSets/Main/val.txt'}: missing file (names of the images of val)"

    def test_a_root_above_the_devkit(self, tmp_path: Path) -> None:
        build_pascal_context(tmp_path / "VOCdevkit" / "VOC2010")
        assert PascalContext(tmp_path, {}).layout_problems()[-1].endswith("VOCdevkit/VOC2010")


class TestCocoStuff:
    def test_every_value_of_the_164k_maps(self, tmp_path: Path) -> None:
        dataset = CocoStuff(build_coco_164k(tmp_path), {})
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

    def test_every_value_of_the_10k_files(self, tmp_path: Path) -> None:
        dataset = CocoStuff(build_coco_10k(tmp_path), {"release": "10k"})
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

    def test_other_values_are_refused(self, tmp_path: Path) -> None:
        dataset = CocoStuff(tmp_path, {})
        with pytest.raises(LabelError, match="unknown label 182; expected 0 to 181, 255"):
            dataset.decode_label(label(tmp_path / "a.png", [[0, 182]]))
        with pytest.raises(LabelError, match="unknown label 183"):
            dataset.decode_label(matlab(tmp_path / "a.mat", "S", [[183]], np.uint8))

    def test_the_other_folder_name_and_converted_files_beside(self, tmp_path: Path) -> None:
        root = build_coco_164k(tmp_path)
        (root / "annotations").rename(root / "stuffthingmaps")
        (root / "annotations").mkdir()
        (root / "annotations/instances_train2017.json").write_text("{}")
        label(root / "stuffthingmaps/train2017/000000000009_labelTrainIds.png", [[0]])
        dataset = CocoStuff(root, {})
        assert dataset.layout_problems() == []
        assert [pair.name for pair in dataset.pairs("train")] == ["000000000009", "000000000025"]

    def test_maps_with_a_palette(self, tmp_path: Path) -> None:
        path = label(tmp_path / "a.png", [[0, 1, 255]], mode="P")
        np.testing.assert_array_equal(CocoStuff(tmp_path, {}).decode_label(path), [[0, 1, 255]])

    def test_matlab_doubles_are_whole_numbers(self, tmp_path: Path) -> None:
        dataset = CocoStuff(tmp_path, {"release": "10k"})
        whole = matlab(tmp_path / "whole.mat", "S", [[0, 1.0, 182.0]], np.float64)
        np.testing.assert_array_equal(dataset.decode_label(whole), [[255, 0, 170]])
        with pytest.raises(LabelError, match="holds fractions"):
            dataset.decode_label(matlab(tmp_path / "half.mat", "S", [[0.5]], np.float64))

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
    def test_every_colour(self, tmp_path: Path) -> None:
        dataset = CamVid32(build_camvid32(tmp_path), {})
        train_ids = dataset.decode_label(dataset.pairs("train")[0].label).reshape(-1)
        assert train_ids[0] == 255
        for position, (name, (colour, _)) in enumerate(COLOURS.items(), start=1):
            assert dataset.class_names[train_ids[position]] == name
            assert dataset.palette[train_ids[position]] == colour
        assert len(COLOURS) + 1 == 32

    def test_every_colour_in_the_eleven_classes(self, tmp_path: Path) -> None:
        dataset = CamVid32(build_camvid32(tmp_path), {"classes": 11})
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

    def test_split_folders_are_the_split(self, tmp_path: Path) -> None:
        for split, name in {"train": "0001TP_006690", "val": "0001TP_008550", "test": "0016E5_07959"}.items():
            image(tmp_path / split / f"{name}.png", 6, 6)
            (tmp_path / f"{split}_labels").mkdir()
            Image.fromarray(camvid_colours()).save(tmp_path / f"{split}_labels" / f"{name}_L.png")
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
