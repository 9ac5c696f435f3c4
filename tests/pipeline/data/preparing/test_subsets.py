"""Training without a recording, and on few images: through `prepare`, on CamVid's layout and on a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError

RECORDINGS = {"0001TP": 3, "0006R0": 5, "0016E5": 8}


@pytest.fixture
def camvid(camvid_replica: Path, write_image, write_label) -> Path:
    """CamVid's layout with more training images, of the three recordings that train."""
    for folder in ("train", "trainannot"):
        for path in (camvid_replica / folder).iterdir():
            path.unlink()
    for recording, count in RECORDINGS.items():
        for frame in range(count):
            write_image(camvid_replica / "train" / f"{recording}_{30 * frame:06}.png")
            write_label(camvid_replica / "trainannot" / f"{recording}_{30 * frame:06}.png", frame)
    return camvid_replica


@pytest.fixture
def folder(tmp_path: Path, write_image, write_label) -> Path:
    """A folder that is split by its subfolders, with two videos to train on."""
    root = tmp_path / "mine"
    for split, names in {"train": ("a_1", "a_2", "b_1", "b_2", "b_3"), "val": ("c_1",), "test": ("d_1",)}.items():
        for name in names:
            write_image(root / "images" / split / f"{name}.png")
            write_label(root / "labels" / split / f"{name}.png", [[0, 1]] * 3 + [[1, 0]] * 3)
            write_image(root / "images" / split / f"{name}.png", height=6, width=2)
    (root / "classes.txt").write_text("road\nsky\n")
    return root


def names_of(config: PrepareConfig, output: Path) -> dict[str, list[str]]:
    prepare(config, output)
    prepared = load_prepared(output, Path(str(config.root)))
    return {name: [entry.name for entry in split.entries] for name, split in prepared.splits.items()}


def test_a_held_out_recording_is_val_and_is_not_trained_on(camvid: Path, tmp_path: Path):
    published = names_of(PrepareConfig("camvid", str(camvid)), tmp_path / "published")
    for recording, count in RECORDINGS.items():
        config = PrepareConfig("camvid", str(camvid), {"hold_out": recording})
        found = names_of(config, tmp_path / recording)
        assert len(found["val"]) == count and all(name.startswith(recording) for name in found["val"])
        assert sorted(found["train"] + found["val"]) == published["train"]
        assert found["test"] == published["test"] and published["val"][0] not in found["val"]
        note = json.loads((tmp_path / recording / "dataset.json").read_text())["notes"]
        assert f"held out: val is the recording '{recording}' of the training images, {count} images" in note[0]


def test_few_images_are_drawn_by_the_seed_and_fewer_are_among_more(camvid: Path, tmp_path: Path):
    drawn = {}
    for count in (4, 9):
        for seed in (100, 101):
            options = {"train_images": count, "subset_seed": seed}
            config = PrepareConfig("camvid", str(camvid), options)
            drawn[count, seed] = names_of(config, tmp_path / f"{count}-{seed}")["train"]
            assert len(drawn[count, seed]) == count and drawn[count, seed] == sorted(drawn[count, seed])
    assert set(drawn[4, 100]) < set(drawn[9, 100]) and set(drawn[4, 101]) < set(drawn[9, 101])
    assert drawn[4, 100] != drawn[4, 101]
    # The draw is part of what a study is made of: it must not change with the version.
    assert drawn[4, 100] == ["0001TP_000060", "0006R0_000000", "0006R0_000090", "0016E5_000000"]
    # Class frequencies are those of the images that are trained on.
    content = json.loads((tmp_path / "4-100" / "dataset.json").read_text())
    assert sum(content["class_pixels"]["train"]) == 4 * 48


def test_both_together_and_on_a_folder(folder: Path, tmp_path: Path):
    options = {"sequence_pattern": r"^(\w)_", "hold_out": "a", "train_images": 2}
    found = names_of(PrepareConfig("folder", str(folder), options), tmp_path / "prepared")
    assert found["val"] == ["a_1", "a_2"] and found["test"] == ["d_1"]
    assert len(found["train"]) == 2 and all(name.startswith("b_") for name in found["train"])


def test_what_is_not_there_is_refused_all_at_once_and_nothing_is_written(camvid: Path, folder: Path, tmp_path: Path):
    output = tmp_path / "refused"
    with pytest.raises(UserError) as refused:
        prepare(PrepareConfig("camvid", str(camvid), {"hold_out": "0016E", "train_images": 17}), output)
    said = str(refused.value)
    assert "2 problems; nothing was written" in said
    assert "hold_out: no training image is of the recording '0016E'; did you mean '0016E5'?" in said
    assert "train_images: expected at most 16, as many as there are to train on, got 17" in said
    # Val's own recording cannot be held out of train, nor a recording of images that name none.
    with pytest.raises(UserError, match="recording 'Seq05VD'; known: 0001TP, 0006R0, 0016E5"):
        prepare(PrepareConfig("camvid", str(camvid), {"hold_out": "Seq05VD"}), output)
    with pytest.raises(UserError, match="recording 'a'; known: none"):
        prepare(PrepareConfig("folder", str(folder), {"hold_out": "a"}), output)
    with pytest.raises(
        ValueError, match=r"train_images: expected at least 1, got 0\n.*subset_seed: expected at least 0"
    ):
        PrepareConfig("camvid", str(camvid), {"train_images": 0, "subset_seed": -1})
    assert not output.exists()


def test_nothing_is_left_to_train_on(folder: Path, tmp_path: Path):
    for path in [*folder.glob("images/train/b_*"), *folder.glob("labels/train/b_*")]:
        path.unlink()
    options = {"sequence_pattern": r"^(\w)_", "hold_out": "a"}
    with pytest.raises(UserError, match="hold_out: the recording 'a' is all that there is to train on"):
        prepare(PrepareConfig("folder", str(folder), options), tmp_path / "refused")


@pytest.mark.slow
@pytest.mark.skipif("CONTRAIL_CAMVID" not in os.environ, reason="CONTRAIL_CAMVID does not name a folder with CamVid")
def test_the_recordings_of_the_real_camvid(camvid_root: Path, tmp_path: Path):
    config = PrepareConfig("camvid", str(camvid_root), {"hold_out": "0016E5", "train_images": 37})
    found = names_of(config, tmp_path / "prepared")
    assert {name: len(names) for name, names in found.items()} == {"train": 37, "val": 204, "test": 233}
