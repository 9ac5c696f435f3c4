"""Optional parts of the distribution, and what to install where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib import metadata

from serving.contract.errors import UnavailableError

DISTRIBUTIONS = ("contrail-seg", "contrail-serving")


def require_extra(extra: str, modules: Sequence[str]) -> None:
    """Refuse to go on without the packages of an extra.

    Args:
        extra: its name in pyproject.toml.
        modules: that it brings, by the names they are imported by.

    Raises:
        UnavailableError: some are missing, with what to install.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UnavailableError(
            f"not installed: {', '.join(missing)}; pip install '{installed_distribution()}[{extra}]'"
        )


def installed_distribution() -> str:
    """Name of the distribution that this package was installed from; the first where it was not installed by pip."""
    for name in DISTRIBUTIONS:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        return name
    return DISTRIBUTIONS[0]
