"""From a mapping read out of YAML, JSON or a command line to a frozen dataclass, listing every problem at once.

By hand, since every room builds on it and serving ships without pydantic or anything else of its kind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from serving.contract.errors import did_you_mean

T = TypeVar("T")

_MISSING = dataclasses.MISSING


class Problems(list[str]):
    """The problems found so far, each `where: what`; `where` is the dotted path in the file it was read from."""

    def add(self, where: str, what: str) -> None:
        """Note one problem."""
        self.append(f"{where}: {what}")


def build(cls: type[T], values: object, where: str, problems: Problems) -> T | None:
    r"""Build the dataclass `cls` from `values`.

    Supports nested dataclasses, `bool`, `int`, `float` (an int is taken), `str`, `Literal`, `X | None`,
    `tuple[X, ...]`, fixed tuples, `dict[str, X]` and `Mapping[str, object]`. A `ValueError` from `__post_init__` is
    one problem per line.

    Args:
        cls: a frozen dataclass.
        values: what YAML or JSON gave; `None` stands for an empty mapping.
        where: dotted path of `values`, for messages.
        problems: every problem found is added here.

    Returns:
        The instance, or None when anything was wrong with it.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Schedule:
        ...     power: float = 0.9
        ...     warmup_iterations: int = 0
        >>> problems = Problems()
        >>> build(Schedule, {"power": 1}, "train.schedule", problems)
        Schedule(power=1.0, warmup_iterations=0)
        >>> build(Schedule, {"powr": 1, "warmup_iterations": "many"}, "train.schedule", problems)
        >>> print(*problems, sep="\n")
        train.schedule.powr: unknown key; did you mean 'power'?
        train.schedule.warmup_iterations: expected a whole number, got str 'many'
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        problems.add(where, f"expected a mapping of settings, got {_shown(values)}")
        return None
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    before = len(problems)
    for key in values:
        if key not in fields:
            problems.add(f"{where}.{key}", f"unknown key{did_you_mean(str(key), fields)}")
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = convert(hints[name], values[name], f"{where}.{name}", problems)
        elif field.default is _MISSING and field.default_factory is _MISSING:
            problems.add(f"{where}.{name}", "missing")
    if len(problems) > before:
        return None
    try:
        return cls(**arguments)
    except ValueError as error:
        for line in str(error).splitlines():
            problems.add(where, line)
        return None


def convert(hint: Any, value: object, where: str, problems: Problems) -> Any:
    """Check `value` against the type `hint` and convert containers; adds a problem and returns None on a mismatch."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        assert len(inner) == 1, f"{where}: only `X | None` unions are supported"
        return convert(inner[0], value, where, problems)
    if origin is Literal:
        if value not in arguments:
            problems.add(where, f"expected one of {', '.join(map(str, arguments))}, got {_shown(value)}")
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where, problems)
    if origin in (dict, Mapping) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        if not isinstance(value, Mapping):
            problems.add(where, f"expected a mapping, got {_shown(value)}")
            return None
        return {str(key): convert(arguments[1], item, f"{where}.{key}", problems) for key, item in value.items()}
    if hint in (object, Any):
        return value
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where, problems)
    return _convert_scalar(hint, value, where, problems)


def _convert_tuple(arguments: tuple[Any, ...], value: object, where: str, problems: Problems) -> Any:
    if not isinstance(value, (list, tuple)):
        problems.add(where, f"expected a list, got {_shown(value)}")
        return None
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        hints = [arguments[0]] * len(value)
    elif len(arguments) == len(value):
        hints = list(arguments)
    else:
        problems.add(where, f"expected {len(arguments)} values, got {_shown(list(value))}")
        return None
    return tuple(
        convert(hint, item, f"{where}[{i}]", problems) for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _convert_scalar(hint: Any, value: object, where: str, problems: Problems) -> Any:
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):  # text: YAML 1.1 reads 1e-3 (no dot) as such
            number = float(value)
            if math.isfinite(number):
                return number
            problems.add(where, f"expected a finite number, got {_shown(value)}")
            return None
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, str) and isinstance(value, hint):
        return value
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    problems.add(where, f"expected {names[hint]}, got {_shown(value)}")
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


class Require:
    """Collects what is wrong inside a `__post_init__` and raises it as one ValueError.

    Example:
        require = Require()
        require(self.threads >= 1, f"threads: expected at least 1, got {self.threads}")
        require.done()
    """

    def __init__(self) -> None:
        self._problems: list[str] = []

    def __call__(self, holds: bool, problem: str) -> None:
        """Note `problem` unless `holds`."""
        if not holds:
            self._problems.append(problem)

    def done(self) -> None:
        """Raise ValueError with one problem per line if there was any."""
        if self._problems:
            raise ValueError("\n".join(self._problems))
