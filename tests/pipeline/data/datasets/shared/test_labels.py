"""Ids and colours that a dataset has, and those that it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.datasets.shared.labels import (
    IGNORE_INDEX,
    ColourTable,
    LabelError,
    LabelTable,
)


class TestLabelTable:
    table = LabelTable({0: 1, 1: 0, 7: IGNORE_INDEX})

    def test_ids_are_translated(self) -> None:
        ids = np.array([[0, 1, 7]], dtype=np.uint8)
        np.testing.assert_array_equal(self.table.apply(ids, Path("a")), [[1, 0, 255]])

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
    def test_unknown_ids_are_named(self, dtype: type) -> None:
        ids = np.array([[0, 2, 250, 2]], dtype=dtype)
        with pytest.raises(LabelError, match=r"a\.png: unknown label 2, 250; expected 0 to 1, 7"):
            self.table.apply(ids, Path("a.png"))

    def test_ids_beyond_the_table(self) -> None:
        with pytest.raises(LabelError, match="-1, 65535, 70000"):
            self.table.apply(np.array([[-1, 65535, 70000]], dtype=np.int32), Path("a"))

    def test_every_byte_is_known_or_refused(self) -> None:
        for value in range(256):
            ids = np.full((2, 2), value, dtype=np.uint8)
            if value in self.table.train_ids:
                assert (self.table.apply(ids, Path("a")) == self.table.train_ids[value]).all()
            else:
                with pytest.raises(LabelError, match=f"unknown label {value};"):
                    self.table.apply(ids, Path("a"))

    def test_many_unknown_ids_are_counted(self) -> None:
        ids = np.arange(100, 200, dtype=np.uint8).reshape(10, 10)
        with pytest.raises(LabelError, match="111 and 88 more"):
            self.table.apply(ids, Path("a"))

    @pytest.mark.parametrize("void", [True, False])
    def test_ids_that_are_train_ids_already_are_checked_all_the_same(self, void: bool) -> None:
        table = LabelTable({0: 0, 1: 1, 2: 2} | ({255: IGNORE_INDEX} if void else {}))
        for value in range(256):
            ids = np.array([[0, value], [2, 1]], dtype=np.uint8)
            if value in table.train_ids:
                np.testing.assert_array_equal(table.apply(ids, Path("a")), ids)
            else:
                with pytest.raises(LabelError, match=f"unknown label {value};"):
                    table.apply(ids, Path("a"))


class TestColours:
    table = ColourTable({(0, 0, 0): IGNORE_INDEX, (64, 0, 192): 0, (255, 255, 255): 1})

    def test_colours_are_translated(self) -> None:
        colours = np.array([[[64, 0, 192], [255, 255, 255], [0, 0, 0]]], dtype=np.uint8)
        np.testing.assert_array_equal(self.table.apply(colours, Path("a")), [[0, 1, 255]])

    def test_unknown_colours_are_named(self) -> None:
        with pytest.raises(LabelError, match=r"a: unknown label colour \(64, 0, 193\)"):
            self.table.apply(np.array([[[64, 0, 193]]], dtype=np.uint8), Path("a"))
