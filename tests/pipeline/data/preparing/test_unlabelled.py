"""Images without labels: listed, hashed and counted by `prepare`, never scored."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pipeline.data.datasets.shared.prepared import load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, write_image, write_label) -> Path:
    """Six pairs side by side, split by nothing."""
    root = tmp_path / "mine"
    for name in "abcdef":
        write_image(root / "images" / f"{name}.png")
        write_label(root / "labels" / f"{name}.png", [[0, 1]] * 3 + [[1, 0]] * 3)
        write_image(root / "images" / f"{name}.png", height=6, width=2)
    (root / "classes.txt").write_text("road\nsky\n")
    return root


def splits_of(root: Path, output: Path) -> dict[str, list[str]]:
    done = prepare(PrepareConfig("folder", str(root)), output)
    prepared = load_prepared(output, root)
    found = {name: [entry.name for entry in split.entries] for name, split in prepared.splits.items()}
    found["unlabelled"] = [entry.name for entry in prepared.unlabelled.entries] if prepared.unlabelled else []
    assert done.unlabelled == len(found["unlabelled"])
    return found


def test_what_was_skipped_is_told_by_its_place_wherever_the_data_lies(folder: Path, tmp_path: Path, write_image):
    write_image(folder / "images/unlabelled/later.png", height=7, width=9)
    for name in ("a", "unlabelled/later"):
        (folder / f"images/{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "labels/b.png").write_bytes(b"damaged")
    shutil.copytree(folder, tmp_path / "moved/caf\udce9")
    first, second = (
        prepare(PrepareConfig("folder", str(root), skip_unreadable=True), tmp_path / f"prepared{index}")
        for index, root in enumerate((folder, tmp_path / "moved/caf\udce9"))
    )
    assert first.warnings == second.warnings and first.sha256 == second.sha256
    assert [warning.partition(": not")[0] for warning in first.warnings] == [
        "skipped unreadable pair: images/a.png",
        "skipped unreadable pair: labels/b.png",
        "skipped unreadable image: images/unlabelled/later.png",
    ]


def test_the_folder_of_unlabelled_images_is_listed_and_changes_no_split(folder: Path, tmp_path: Path, write_image):
    before = splits_of(folder, tmp_path / "before")
    content = json.loads((tmp_path / "before/dataset.json").read_text())
    assert before["unlabelled"] == [] and "unlabelled" not in content
    for index, name in enumerate(("later.png", "deeper/x.png")):
        write_image(folder / "images/unlabelled" / name, height=7 + index, width=9)
    after = splits_of(folder, tmp_path / "after")
    assert after.pop("unlabelled") == ["unlabelled/deeper/x", "unlabelled/later"]
    assert after == {name: names for name, names in before.items() if name != "unlabelled"}
    content = json.loads((tmp_path / "after/dataset.json").read_text())
    first = content["unlabelled"][0]
    path = folder / "images/unlabelled/deeper/x.png"
    assert first["image"] == "images/unlabelled/deeper/x.png" and (first["height"], first["width"]) == (8, 9)
    assert first["image_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "label" not in first and "label_sha256" not in first
    assert any(note.startswith("unlabelled: 2 images without labels") for note in content["notes"])
    prepared = load_prepared(tmp_path / "after", folder)
    assert prepared.unlabelled is not None
    assert prepared.unlabelled.read_image(0).shape == (8, 9, 3)
    with pytest.raises(UserError, match="listed without a label, and cannot be scored"):
        prepared.unlabelled.read_label(0)
    with pytest.raises(UserError, match="unknown split 'unlabelled'"):
        prepared.split("unlabelled")
    # They are part of the data: another one, and what was prepared has another hash, and its file is refused.
    write_image(path, height=8, width=9, seed=5)
    with pytest.raises(UserError, match="not what was prepared"):
        load_prepared(tmp_path / "after", folder).unlabelled.read_image(0)
    splits_of(folder, tmp_path / "again")
    assert json.loads((tmp_path / "again/dataset.json").read_text())["sha256"] != content["sha256"]


def test_a_list_names_unlabelled_images_among_the_others(folder: Path, tmp_path: Path, write_image):
    before = splits_of(folder, tmp_path / "before")
    write_image(folder / "images/x.png")
    with pytest.raises(UserError, match="missing label"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")
    (folder / "unlabelled.txt").write_text("images/x.png\n")
    after = splits_of(folder, tmp_path / "after")
    assert after.pop("unlabelled") == ["x"] and {**after, "unlabelled": []} == before
    (folder / "train.txt").write_text("a\nb\nx\n")
    (folder / "val.txt").write_text("c\n")
    with pytest.raises(UserError, match="'x' is in the list of train too"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")
    (folder / "train.txt").write_text("a\nb\n")
    assert splits_of(folder, tmp_path / "listed") == {
        "train": ["a", "b"],
        "val": ["c"],
        "test": [],
        "unlabelled": ["x"],
    }
    (folder / "unlabelled.txt").write_text("x\nd\ne\n")
    with pytest.raises(UserError, match=r"unlabelled.txt: 2 of its images have labels, such as .*labels/d.png; take"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")
    (folder / "unlabelled.txt").write_text("nowhere\n")
    with pytest.raises(UserError, match="'nowhere' is no image"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")


def test_folders_of_splits_have_the_folder_of_unlabelled_images_beside_them(folder: Path, tmp_path: Path, write_image):
    for kind in ("images", "labels"):
        for split, names in {"train": "abcd", "val": "ef"}.items():
            (folder / kind / split).mkdir()
            for name in names:
                shutil.move(folder / kind / f"{name}.png", folder / kind / split)
    write_image(folder / "images/unlabelled/x.png")
    found = splits_of(folder, tmp_path / "prepared")
    assert found == {"train": list("abcd"), "val": list("ef"), "test": [], "unlabelled": ["unlabelled/x"]}
    (folder / "unlabelled.txt").write_text("images/unlabelled/x.png\n")
    with pytest.raises(UserError, match=r"unlabelled.txt: is not read where folders tell the splits; put these images"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")


def test_what_is_wrong_with_unlabelled_images_is_told(folder: Path, tmp_path: Path, write_image, write_label):
    broken = folder / "images/unlabelled/broken.png"
    broken.parent.mkdir()
    broken.write_bytes((folder / "images/a.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"unreadable \(1\):\n.*broken.png"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    done = prepare(PrepareConfig("folder", str(folder), skip_unreadable=True), tmp_path / "skipped")
    assert done.unlabelled == 0 and any("broken.png" in warning for warning in done.warnings)
    broken.unlink()
    # An image that is measured on is not to be trained on, with or without a label.
    shutil.copy(folder / "images/a.png", folder / "images/unlabelled/copy.png")
    done = prepare(PrepareConfig("folder", str(folder)), tmp_path / "overlap")
    assert any("images/unlabelled/copy.png (unlabelled) are the same image" in warning for warning in done.warnings)
    # A label in the folder's mirror is somebody's work: it is not passed over.
    write_label(folder / "labels/unlabelled/copy.png", [[0, 1]] * 3)
    with pytest.raises(UserError, match=r"1 of its images have labels, such as .*labels/unlabelled/copy.png"):
        prepare(PrepareConfig("folder", str(folder)), tmp_path / "refused")


def test_the_frames_outside_a_subset_are_unlabelled_without_a_held_out_recording(
    camvid_replica: Path, tmp_path: Path, write_image, write_label
):
    for index, recording in enumerate(("0001TP", "0006R0") * 3):
        write_image(camvid_replica / "train" / f"{recording}_{30 * index:06}.png", seed=index + 10)
        write_label(camvid_replica / "trainannot" / f"{recording}_{30 * index:06}.png", index)
    whole = PrepareConfig("camvid", str(camvid_replica))
    prepare(whole, tmp_path / "whole")
    everything = load_prepared(tmp_path / "whole", camvid_replica)
    assert everything.unlabelled is None
    options = {"train_images": 2, "hold_out": "0006R0"}
    prepare(PrepareConfig("camvid", str(camvid_replica), options), tmp_path / "subset")
    prepared = load_prepared(tmp_path / "subset", camvid_replica)
    assert prepared.unlabelled is not None
    labelled = {entry.name for entry in prepared.split("train").entries}
    unlabelled = {entry.name for entry in prepared.unlabelled.entries}
    assert len(labelled) == 2 and unlabelled and not labelled & unlabelled
    assert all(not name.startswith("0006R0") for name in unlabelled)
    rest = {entry.name for entry in everything.split("train").entries if entry.sequence != "0006R0"}
    assert labelled | unlabelled == rest
    assert all(not entry.label and not entry.labels for entry in prepared.unlabelled.entries)
