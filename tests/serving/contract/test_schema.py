"""The config builder: conversions, and every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract.schema import Problems, Require, build


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    name: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner = field(default_factory=Inner)
    size: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    table: dict[str, Inner] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    flag: bool = False

    def __post_init__(self) -> None:
        require = Require()
        require(self.count >= 1, f"count: expected at least 1, got {self.count}")
        require(self.size is None or self.size[0] > 0, "size: expected positive")
        require.done()


def test_builds_every_kind_of_field() -> None:
    problems = Problems()
    built = build(
        Outer,
        {
            "count": 3,
            "inner": {"rate": 1, "name": "b"},
            "size": [4, 5],
            "scales": [1, 0.5],
            "table": {"x": {"rate": "1e-3"}},
            "options": {"any": [1]},
        },
        "outer",
        problems,
    )
    assert problems == []
    assert built == Outer(3, Inner(1.0, "b"), (4, 5), (1.0, 0.5), {"x": Inner(0.001)}, {"any": [1]})
    assert isinstance(built.inner.rate, float)


def test_lists_every_problem_at_once() -> None:
    problems = Problems()
    values = {
        "cuont": 3,
        "inner": {"rate": "fast", "name": "c"},
        "size": [1, 2, 3],
        "table": {"x": {"rat": 1}},
        "flag": 1,
        "scales": 2,
    }
    assert build(Outer, values, "outer", problems) is None
    assert problems == [
        "outer.cuont: unknown key; did you mean 'count'?",
        "outer.count: missing",
        "outer.inner.rate: expected a number, got str 'fast'",
        "outer.inner.name: expected one of a, b, got str 'c'",
        "outer.size: expected 2 values, got list [1, 2, 3]",
        "outer.scales: expected a list, got int 2",
        "outer.table.x.rat: unknown key; did you mean 'rate'?",
        "outer.flag: expected true or false, got int 1",
    ]


def test_values_out_of_range_are_listed_with_their_section() -> None:
    problems = Problems()
    assert build(Outer, {"count": 0, "size": [0, 1]}, "outer", problems) is None
    assert problems == ["outer: count: expected at least 1, got 0", "outer: size: expected positive"]


def test_a_bool_is_not_a_number_and_a_number_not_text() -> None:
    problems = Problems()
    build(Outer, {"count": True, "inner": {"rate": False}}, "outer", problems)
    assert problems == [
        "outer.count: expected a whole number, got bool True",
        "outer.inner.rate: expected a number, got bool False",
    ]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), "inf", "nan", 10**400])
def test_a_number_is_finite(value: object) -> None:
    problems = Problems()
    assert build(Outer, {"inner": {"rate": value}}, "outer", problems) is None
    assert any(problem.startswith("outer.inner.rate: expected a ") for problem in problems)


@pytest.mark.parametrize("values", [[1], "text", 3, {1: 2}, {"count": None}, {"count": [[]]}, {"count": {"a": 1}}])
def test_hostile_values_are_problems_not_crashes(values: object) -> None:
    problems = Problems()
    assert build(Outer, values, "outer", problems) is None
    assert problems


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["count", "inner", "rate", "x"]), inner)
    ),
    max_leaves=8,
)


@given(json_like)
def test_any_yaml_either_builds_or_has_problems(values: object) -> None:
    problems = Problems()
    built = build(Outer, values, "outer", problems)
    assert (built is None) == bool(problems)
