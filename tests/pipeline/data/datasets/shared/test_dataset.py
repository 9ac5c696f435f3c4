"""What holds for every dataset of the registry, and the section `prepare` of the params."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.dataset import SPLITS, list_files, pair_by_name
from pipeline.data.preparing.config import PrepareConfig
from serving.contract.errors import UserError


@pytest.mark.parametrize("name", list(DATASETS))
class TestEveryDataset:
    def test_it_needs_its_root_and_says_so(self, name: str) -> None:
        dataset = DATASETS.resolve(name)
        with pytest.raises(UserError, match=r"needs its folder: set prepare\.root"):
            _ = dataset(None, {}).root
        if not dataset.generated:
            with pytest.raises(ValueError, match="root: missing"):
                PrepareConfig(dataset=name)

    def test_unknown_options_are_refused_all_at_once(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError) as caught:
            DATASETS.resolve(name)(tmp_path, {"colour": 1, "sise": 2})
        assert "prepare.options.colour: unknown key" in str(caught.value)
        assert "prepare.options.sise: unknown key" in str(caught.value)

    def test_an_empty_folder_has_layout_problems_and_no_crash(self, name: str, tmp_path: Path) -> None:
        dataset = DATASETS.resolve(name)(tmp_path, {})
        assert dataset.layout_problems()
        assert dataset.ignore_index == 255
        for split in SPLITS:
            assert dataset.pairs(split) == []

    def test_making_one_reads_nothing(self, name: str) -> None:
        DATASETS.resolve(name)(Path("/nonexistent"), {})


class TestConfig:
    def test_an_unknown_dataset(self) -> None:
        with pytest.raises(ValueError, match="dataset: unknown dataset 'camvod'; did you mean 'camvid'"):
            PrepareConfig(dataset="camvod")

    def test_a_root_for_a_generated_dataset(self) -> None:
        with pytest.raises(ValueError, match="root: expected none, the dataset 'streets' is generated"):
            PrepareConfig(root="/data")

    def test_every_problem_at_once(self) -> None:
        with pytest.raises(ValueError) as caught:
            PrepareConfig(dataset="camvid32", options={"classes": 3, "x": 1}, threads=0)
        assert len(str(caught.value).splitlines()) == 4


class TestPairing:
    def test_partners_duplicates_and_orphans(self) -> None:
        pairs = pair_by_name(
            [Path("i/b.png"), Path("i/a.png"), Path("i/a.jpg"), Path("i/c.png")],
            [Path("l/a.png"), Path("l/b.png"), Path("l/d.png")],
            label_path=lambda name: Path(f"l/{name}.png"),
            image_path=lambda name: Path(f"i/{name}.png"),
        )
        assert [(pair.name, pair.image.name, pair.label.name) for pair in pairs] == [
            ("a", "a.png", "a.png"),
            ("a", "a.jpg", "a.png"),
            ("b", "b.png", "b.png"),
            ("c", "c.png", "c.png"),
            ("d", "d.png", "d.png"),
        ]

    def test_listing_leaves_out_hidden_and_other_files(self, tmp_path: Path) -> None:
        for name in ("b.PNG", "a.jpeg", "._a.png", "Thumbs.db", "notes.txt", ".DS_Store"):
            (tmp_path / name).touch()
        assert [path.name for path in list_files(tmp_path)] == ["a.jpeg", "b.PNG"]
        assert list_files(tmp_path / "none") == []
