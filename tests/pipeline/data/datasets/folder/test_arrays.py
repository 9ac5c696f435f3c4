"""Labels in arrays: .npy and .mat."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.datasets.folder.dataset import Folder
from serving.contract.errors import UserError
from tests.pipeline.data.datasets.folder.tree import Tree


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, bool])
    @pytest.mark.parametrize("ending", [".npy", ".mat"])
    def test_label_maps(self, tree: Tree, dtype: type, ending: str) -> None:
        from scipy.io import savemat

        for key, name in enumerate(("a", "b"), start=1):
            tree.image(f"images/{name}.png", key)
            path = tree.root / "labels" / f"{name}{ending}"
            path.parent.mkdir(exist_ok=True)
            drawing = tree.drawing(key).astype(dtype)
            np.save(path, drawing) if ending == ".npy" else savemat(path, {"map": drawing, "about": "a"})
        tree.count = 2
        assert tree.all_names() == ["a", "b"]

    def test_minus_one_is_void_when_said(self, tree: Tree) -> None:
        tree.pair("images/a.png", "labels/a.npy")
        tree.pair("images/b.png", "labels/b.npy")
        drawing = tree.drawing(1).astype(np.int32)
        drawing[0] = -1
        np.save(tree.root / "labels/a.npy", drawing)
        with pytest.raises(UserError, match=r"unknown label -1: 10 pixels"):
            tree.prepare()
        tree.prepare(void_values=[-1])
        dataset = Folder(tree.root, {"void_values": [-1]})
        assert (dataset.decode_label(tree.root / "labels/a.npy")[0] == 255).all()

    @pytest.mark.parametrize(
        ("array", "problem"),
        [
            (np.full((8, 10), 0.5), "holds fractions; expected whole label ids"),
            (np.full((8, 10), np.nan), "holds NaN; expected whole label ids, such as 255 for pixels that have none"),
            (np.full((8, 10), -np.inf), "holds -inf; expected whole label ids"),
            (np.full((8, 10), -7), "holds -7; expected whole label ids"),
            (np.zeros((8, 10, 3)), "expected whole numbers, HxW"),
            (np.array([{}], dtype=object), "Python objects"),
        ],
    )
    def test_arrays_that_are_no_labels(self, tree: Tree, array: np.ndarray, problem: str) -> None:
        tree.pair("images/a.png", "labels/a.npy")
        tree.pair("images/b.png", "labels/b.npy")
        np.save(tree.root / "labels/a.npy", array, allow_pickle=True)
        with pytest.raises(UserError, match=problem):
            tree.prepare()

    def test_a_bomb(self, tree: Tree) -> None:
        for name in ("a", "b"):
            tree.pair(f"images/{name}.png", f"labels/{name}.npy")
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (400000, 400000), }".ljust(117) + b"\n"
        (tree.root / "labels/a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(UserError, match="400000x400000 values; at most"):
            tree.prepare()
