"""Each public dataset in a tiny replica of its layout: read as it is, and every fault named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.datasets import DATASETS
from pipeline.data.datasets.shared.labels import UnreadableError
from pipeline.data.datasets.shared.prepared import Prepared, load_prepared
from pipeline.data.preparing.config import PrepareConfig
from pipeline.data.preparing.preparation import prepare
from serving.contract.errors import UserError


def prepared(name: str, root: Path, folder: Path, **options: object) -> Prepared:
    prepare(PrepareConfig(dataset=name, root=str(root), options=options), folder, strict=True)
    return load_prepared(folder, root)


REPLICAS: dict[str, tuple[str, str, dict[str, object]]] = {
    "cityscapes": ("cityscapes", "cityscapes", {}),
    "ade20k": ("ade20k", "ade20k", {}),
    "pascal_context": ("pascal_context", "pascal_context", {}),
    "coco_stuff_164k": ("coco_stuff", "coco_164k", {}),
    "coco_stuff_10k": ("coco_stuff", "coco_10k", {"release": "10k"}),
    "camvid32": ("camvid32", "camvid32", {}),
    "camvid32_11": ("camvid32", "camvid32", {"classes": 11}),
}


class TestEveryReplica:
    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_prepare_reads_it_as_it_is(self, replicas: Any, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = getattr(replicas, build)(tmp_path / "root")
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
    def test_every_missing_folder_is_named(self, replicas: Any, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        complete = getattr(replicas, build)(tmp_path / "complete")
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
    def test_a_missing_label_and_a_missing_image(self, replicas: Any, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = getattr(replicas, build)(tmp_path / "root")
        pairs = DATASETS.resolve(name)(root, options).pairs("train")
        pairs[0].label.unlink()
        pairs[1].image.unlink()
        with pytest.raises(UserError) as caught:
            prepare(PrepareConfig(dataset=name, root=str(root), options=options), tmp_path / "prepared")
        assert f"{pairs[0].label} (for {pairs[0].image.name})" in str(caught.value)
        assert f"{pairs[1].image} (for {pairs[1].label.name})" in str(caught.value)
        assert "2 problems" in str(caught.value)

    @pytest.mark.parametrize("replica", list(REPLICAS))
    def test_a_truncated_label(self, replicas: Any, replica: str, tmp_path: Path) -> None:
        name, build, options = REPLICAS[replica]
        root = getattr(replicas, build)(tmp_path / "root")
        dataset = DATASETS.resolve(name)(root, options)
        path = dataset.pairs("train")[0].label
        content = path.read_bytes()
        for length in (0, 10, len(content) // 2):
            path.write_bytes(content[:length])
            with pytest.raises(UnreadableError, match=path.name):
                dataset.decode_label(path)


def _is_city(folder: Path) -> bool:
    return folder.parent.parent.name in ("leftImg8bit", "gtFine")
