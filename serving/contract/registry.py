"""Names that params.yaml and the command line may use, resolved to code only when first used.

By hand: entry points of installed packages do the like, but a checkout from which nothing is installed has none.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from serving.contract.errors import UserError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """A fixed map from a public name to `"package.module:attribute"`.

    Args:
        kind: what the names are, in the singular, for messages ("loss", "dataset").
        entries: name -> `"package.module:attribute"`.

    Example:
        >>> shapes: Registry[type] = Registry("shape", {"fraction": "fractions:Fraction"})
        >>> shapes.resolve("fraction")(1, 2)
        Fraction(1, 2)
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def module_of(self, name: str) -> str:
        """Dotted module that holds `name`. Raises UserError for an unknown name."""
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        return self._entries[name].partition(":")[0]

    def resolve(self, name: str) -> T:
        """Import and return what `name` stands for. Raises UserError for an unknown name."""
        module = importlib.import_module(self.module_of(name))
        return cast(T, getattr(module, self._entries[name].partition(":")[2]))
