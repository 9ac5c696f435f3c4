"""`prepare`: every kind of bad data is found and listed at once, and nothing is ever half-written."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.datasets.shared.prepared import load_prepared, resolve_root
from pipeline.data.preparing import preparation
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError


def camvid_config(root: Path, **settings: object) -> PrepareConfig:
    return PrepareConfig(dataset="camvid", root=str(root), **settings)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class TestGoodData:
    def test_what_is_written_is_read_back(self, camvid_replica: Path, tmp_path: Path) -> None:
        done = prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        prepared = load_prepared(tmp_path / "prepared", camvid_replica)
        assert done.pairs == {"train": 2, "val": 1, "test": 1}
        assert done.sha256 == prepared.sha256
        assert done.warnings == ()
        assert prepared.class_names[0] == "sky" and prepared.num_classes == 11
        train = prepared.split("train")
        assert [train.name(i) for i in range(len(train))] == ["0001TP_006690", "0016E5_00390"]
        assert train.sequence(1) == "0016E5"
        assert train.size(0) == (6, 8)
        assert train.read_image(0).shape == (6, 8, 3) and train.read_image(0).dtype == np.uint8
        with Image.open(camvid_replica / "trainannot/0001TP_006690.png") as label:
            ids = np.asarray(label)
        np.testing.assert_array_equal(train.read_label(0), np.where(ids == 11, 255, ids))

    def test_class_frequencies_are_those_of_train(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        prepared = load_prepared(tmp_path / "prepared", camvid_replica)
        label = np.concatenate([prepared.split("train").read_label(i).ravel() for i in range(2)])
        expected = [(label == c).sum() / (label != 255).sum() for c in range(11)]
        np.testing.assert_allclose(prepared.class_frequencies, expected, rtol=1e-15)
        assert prepared.class_pixels["val"] == tuple(
            (prepared.split("val").read_label(0) == c).sum() for c in range(11)
        )

    def test_same_bytes_wherever_the_data_is(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica, threads=1), tmp_path / "a")
        shutil.copytree(camvid_replica, tmp_path / "elsewhere" / "data")
        prepare(camvid_config(tmp_path / "elsewhere" / "data", threads=3), tmp_path / "b")
        assert (tmp_path / "a/dataset.json").read_bytes() == (tmp_path / "b/dataset.json").read_bytes()
        assert str(tmp_path) not in (tmp_path / "a/dataset.json").read_text()

    def test_the_hash_follows_every_file(self, camvid_replica: Path, tmp_path: Path, write_image, write_label) -> None:
        hashes = {prepare(camvid_config(camvid_replica), tmp_path / "prepared").sha256}
        write_image(camvid_replica / "test/Seq05VD_f00000.png", seed=5)
        hashes.add(prepare(camvid_config(camvid_replica), tmp_path / "prepared").sha256)
        write_label(camvid_replica / "valannot/0016E5_07959.png", 3)
        hashes.add(prepare(camvid_config(camvid_replica), tmp_path / "prepared").sha256)
        assert len(hashes) == 3

    def test_an_earlier_result_is_replaced_and_nothing_else_is_left(self, camvid_replica: Path, tmp_path: Path) -> None:
        output = tmp_path / "out" / "prepared"
        for _ in range(2):
            prepare(camvid_config(camvid_replica), output)
        assert [path.name for path in output.parent.iterdir()] == ["prepared"]
        assert [path.name for path in output.iterdir()] == ["dataset.json"]

    def test_what_a_killed_run_left_is_cleared_by_the_next(self, camvid_replica: Path, tmp_path: Path) -> None:
        output = tmp_path / "out" / "prepared"
        killed = textwrap.dedent("""
            import os, signal, sys
            from pathlib import Path
            from pipeline.data.preparing import preparation
            from pipeline.data.preparing.config import PrepareConfig
            preparation.look_at = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
            few = {"train": 2, "val": 1, "test": 1}
            preparation.prepare(PrepareConfig(dataset="streets", options=few), Path(sys.argv[1]))
        """)
        done = subprocess.run([sys.executable, "-c", killed, str(output)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(list(output.parent.glob(".prepared.*/streets/train/images/*.png"))) == 2
        prepare(camvid_config(camvid_replica), output)
        assert [path.name for path in output.parent.iterdir()] == ["prepared"]

    def test_a_link_in_place_of_the_folder_is_refused(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "elsewhere")
        (tmp_path / "prepared").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UserError, match="prepared: a link; expected a folder"):
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        assert (tmp_path / "prepared/dataset.json").is_file()

    def test_progress_goes_to_standard_error(self, camvid_replica: Path, tmp_path: Path, capsys) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared", progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "check camvid" in captured.err and "4/4" in captured.err
        prepare(camvid_config(camvid_replica), tmp_path / "prepared", progress=False)
        assert capsys.readouterr().err == ""


class TestBadData:
    def test_every_problem_is_listed_at_once(
        self, camvid_replica: Path, tmp_path: Path, write_image, write_label
    ) -> None:
        root = camvid_replica
        write_image(root / "train/0006R0_f00930.png")  # no label
        write_label(root / "trainannot/0006R0_f00960.png", 0)  # no image
        write_image(root / "train/0001TP_006690.jpg")  # a second image of one name
        write_image(root / "train/big.png", height=12, width=16)
        write_label(root / "trainannot/big.png", 0)
        write_image(root / "val/values.png")
        write_label(root / "valannot/values.png", 12)
        write_image(root / "val/colours.png")
        write_image(root / "valannot/colours.png")
        truncate(write_image(root / "test/cut.png"))
        write_label(root / "testannot/cut.png", 0)
        write_image(root / "test/cut2.png")
        truncate(write_label(root / "testannot/cut2.png", np.arange(144).reshape(12, 12) % 11))
        write_image(root / "test/text.png")
        (root / "testannot/text.png").write_text("not an image")
        with pytest.raises(UserError) as caught:
            prepare(camvid_config(root), tmp_path / "prepared")
        message = str(caught.value)
        assert message.startswith("dataset camvid: 9 problems; nothing was written")
        for kind, count, texts in (
            ("duplicate name", 1, ["0001TP_006690 in train: ", "0001TP_006690.jpg", "0001TP_006690.png"]),
            ("missing label", 1, ["trainannot/0006R0_f00930.png (for 0006R0_f00930.png)"]),
            ("missing image", 1, ["train/0006R0_f00960.png (for 0006R0_f00960.png)"]),
            ("size mismatch", 1, ["train/big.png: image 16x12, label 8x6"]),
            ("bad label", 2, ["values.png: unknown label 12; expected 0 to 11", "colours.png: a label of mode RGB"]),
            ("unreadable", 3, ["test/cut.png", "testannot/cut2.png", "testannot/text.png: not an image"]),
        ):
            assert f"{kind} ({count}):" in message
            for text in texts:
                assert text in message
        assert list(tmp_path.iterdir()) == [root]

    def test_a_failure_keeps_the_earlier_result(self, camvid_replica: Path, tmp_path: Path, write_label) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        before = (tmp_path / "prepared/dataset.json").read_bytes()
        write_label(camvid_replica / "trainannot/0016E5_00390.png", 99)
        with pytest.raises(UserError, match="unknown label 99"):
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        assert (tmp_path / "prepared/dataset.json").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "prepared"]

    def test_a_crash_while_writing_leaves_nothing(
        self, camvid_replica: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        before = (tmp_path / "prepared/dataset.json").read_bytes()

        def full_disk(*arguments: object, **keywords: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(UserError, match="nothing was written: No space left"):
            patched.setattr(Path, "write_text", full_disk)
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        assert (tmp_path / "prepared/dataset.json").read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "prepared"]

    def test_a_crash_between_the_renames_restores_the_earlier_result(
        self, camvid_replica: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        original = Path.replace
        calls = []

        def second_fails(self: Path, target: Path) -> Path:
            calls.append(target)
            if len(calls) == 2:
                raise OSError(5, "Input/output error")
            return original(self, target)

        with monkeypatch.context() as patched, pytest.raises(UserError, match="cannot be written: Input/output"):
            patched.setattr(Path, "replace", second_fails)
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        load_prepared(tmp_path / "prepared", camvid_replica)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["camvid", "prepared"]

    @pytest.mark.parametrize("which", ["train/0016E5_00390.png", "trainannot/0016E5_00390.png"])
    def test_unreadable_pairs_are_skipped_only_when_asked(
        self, camvid_replica: Path, tmp_path: Path, which: str
    ) -> None:
        truncate(camvid_replica / which)
        with pytest.raises(UserError, match=r"unreadable \(1\)(.|\n)*set prepare\.skip_unreadable: true"):
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        done = prepare(camvid_config(camvid_replica, skip_unreadable=True), tmp_path / "prepared")
        assert done.pairs["train"] == 1
        assert len(done.warnings) == 1 and which in done.warnings[0]
        with pytest.raises(UserError, match=r"unreadable \(1\)"):
            prepare(camvid_config(camvid_replica, skip_unreadable=True), tmp_path / "strict", strict=True)

    def test_skipping_does_not_excuse_other_problems(self, camvid_replica: Path, tmp_path: Path, write_label) -> None:
        write_label(camvid_replica / "trainannot/0016E5_00390.png", 99)
        (camvid_replica / "valannot/0016E5_07959.png").unlink()
        with pytest.raises(UserError, match="2 problems"):
            prepare(camvid_config(camvid_replica, skip_unreadable=True), tmp_path / "prepared")

    def test_a_split_of_which_nothing_can_be_read(self, camvid_replica: Path, tmp_path: Path) -> None:
        truncate(camvid_replica / "val/0016E5_07959.png")
        with pytest.raises(UserError, match="val: none of its 1 pairs can be read"):
            prepare(camvid_config(camvid_replica, skip_unreadable=True), tmp_path / "prepared")

    def test_one_image_in_two_splits_is_a_warning_and_strict_fails(self, camvid_replica: Path, tmp_path: Path) -> None:
        shutil.copy(camvid_replica / "train/0016E5_00390.png", camvid_replica / "test/Seq05VD_f00000.png")
        done = prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        expected = "train/0016E5_00390.png (train) and test/Seq05VD_f00000.png (test) are the same image"
        assert done.warnings == (f"split overlap: {expected}",)
        with pytest.raises(UserError, match=r"split overlap \(1\)"):
            prepare(camvid_config(camvid_replica), tmp_path / "strict", strict=True)

    def test_a_class_without_training_pixels_is_a_warning(
        self, camvid_replica: Path, tmp_path: Path, write_label
    ) -> None:
        for name in ("0001TP_006690", "0016E5_00390"):
            write_label(camvid_replica / f"trainannot/{name}.png", np.arange(48).reshape(6, 8) % 10)
        done = prepare(camvid_config(camvid_replica), tmp_path / "prepared", strict=True)
        assert done.warnings == ("unseen class: bicyclist: no training pixel",)

    def test_missing_folders_are_all_named(self, camvid_replica: Path, tmp_path: Path) -> None:
        shutil.rmtree(camvid_replica / "valannot")
        shutil.rmtree(camvid_replica / "test")
        with pytest.raises(UserError) as caught:
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        assert f"{camvid_replica / 'valannot'}: missing folder (labels of val)" in str(caught.value)
        assert f"{camvid_replica / 'test'}: missing folder (images of test)" in str(caught.value)

    def test_a_missing_root(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere: no such folder"):
            prepare(camvid_config(tmp_path / "nowhere"), tmp_path / "prepared")

    def test_empty_folders(self, camvid_replica: Path, tmp_path: Path) -> None:
        for folder in ("train", "trainannot"):
            shutil.rmtree(camvid_replica / folder)
            (camvid_replica / folder).mkdir()
        with pytest.raises(UserError, match=r"train: no image of this split .* 1 of val and 1 of test"):
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")

    def test_a_folder_with_other_things_is_not_replaced(self, camvid_replica: Path, tmp_path: Path) -> None:
        precious = tmp_path / "home"
        precious.mkdir()
        (precious / "thesis.txt").write_text("years of work")
        with pytest.raises(UserError, match="exists and is not a prepared dataset"):
            prepare(camvid_config(camvid_replica), precious)
        assert (precious / "thesis.txt").read_text() == "years of work"

    def test_an_output_that_cannot_be_made(self, camvid_replica: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        for output in (tmp_path / "file", tmp_path / "file" / "prepared"):
            with pytest.raises(UserError, match=r"not a prepared dataset|cannot be written"):
                prepare(camvid_config(camvid_replica), output)
        assert (tmp_path / "file").read_text() == "in the way"

    def test_long_lists_are_cut_with_the_count(
        self, camvid_replica: Path, tmp_path: Path, write_image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(preparation, "MAX_LISTED", 3)
        for index in range(10):
            write_image(camvid_replica / f"train/a{index}.png")
        with pytest.raises(UserError) as caught:
            prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        assert "10 problems" in str(caught.value) and "    and 7 more" in str(caught.value)
        assert str(caught.value).count("missing") == 1


class TestLoadPrepared:
    def test_nothing_prepared(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no prepared dataset; run the stage prepare first"):
            load_prepared(tmp_path, None)

    def test_an_edited_file_is_refused(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        path = tmp_path / "prepared/dataset.json"
        path.write_text(path.read_text().replace("0016E5_00390", "0016E5_00391"))
        with pytest.raises(UserError, match="edited or damaged; run prepare again"):
            load_prepared(tmp_path / "prepared", camvid_replica)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 99}', "null", "\x00"])
    def test_a_damaged_file(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(UserError, match="run prepare again"):
            load_prepared(tmp_path, None)

    def test_the_stored_hash_is_a_sha256_of_the_rest(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        content = json.loads((tmp_path / "prepared/dataset.json").read_text())
        stored = content.pop("sha256")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert stored == hashlib.sha256(canonical.encode()).hexdigest()
        image = camvid_replica / content["splits"]["val"][0]["image"]
        assert content["splits"]["val"][0]["image_sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()

    def test_a_missing_root(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        with pytest.raises(UserError, match=r"needs its folder: set prepare\.root"):
            load_prepared(tmp_path / "prepared", None)

    def test_splits_that_are_empty_or_unknown(self, camvid_replica: Path, tmp_path: Path) -> None:
        for folder in ("test", "testannot"):
            for path in (camvid_replica / folder).iterdir():
                path.unlink()
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        prepared = load_prepared(tmp_path / "prepared", camvid_replica)
        with pytest.raises(UserError, match="no labelled images in its split 'test'; it has: train, val"):
            prepared.split("test")
        with pytest.raises(UserError, match="unknown split 'validation'"):
            prepared.split("validation")

    def test_a_file_that_vanished(self, camvid_replica: Path, tmp_path: Path) -> None:
        prepare(camvid_config(camvid_replica), tmp_path / "prepared")
        train = load_prepared(tmp_path / "prepared", camvid_replica).split("train")
        train.image_path(0).unlink()
        train.label_paths(0)[0].unlink()
        with pytest.raises(UserError, match="0001TP_006690"):
            train.read_image(0)
        with pytest.raises(UserError, match="0001TP_006690"):
            train.read_label(0)


class TestResolveRoot:
    def test_variables_and_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATA_A", "/data/a")
        monkeypatch.setenv("HOME", "/home/user")
        assert resolve_root("$DATA_A/camvid") == Path("/data/a/camvid")
        assert resolve_root("${DATA_A}b") == Path("/data/ab")
        assert resolve_root("~/camvid") == Path("/home/user/camvid")
        assert resolve_root("relative/x") == Path("relative/x")
        assert resolve_root(None) is None

    def test_unset_variables_are_all_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DATA_A", raising=False)
        monkeypatch.setenv("DATA_B", "")
        with pytest.raises(UserError, match=r"'\$DATA_A/\$\{DATA_B\}', but .* DATA_A and DATA_B is not set"):
            resolve_root("$DATA_A/${DATA_B}")


class TestRealCamVid:
    def test_the_published_split(self, camvid_root: Path, tmp_path: Path) -> None:
        config = PrepareConfig(dataset="camvid", root="$CONTRAIL_CAMVID")
        done = prepare(config, tmp_path / "prepared")
        assert done.pairs == {"train": 367, "val": 101, "test": 233}
        assert not [warning for warning in done.warnings if "overlap" in warning]  # sequences overlap, frames do not
        prepared = load_prepared(tmp_path / "prepared", resolve_root(config.root))
        sequences = {split: {entry.sequence for entry in prepared.split(split).entries} for split in ("train", "test")}
        assert sequences == {"train": {"0001TP", "0006R0", "0016E5"}, "test": {"0001TP", "Seq05VD"}}
        assert prepared.class_frequencies[3] == max(prepared.class_frequencies)  # road
