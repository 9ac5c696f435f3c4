"""Numbers as text, the same in every table; a dash for what is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

DASH = "\N{EN DASH}"

# What Markdown, with the additions of GitHub's, takes for something else than itself inside a line.
_MARKUP = re.compile(
    r"[\\<*`~$]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word it is none
    r"|&(?=#?\w+;)"
    r"|\](?=[(\[:])"  # what makes a link of brackets
)
_CODE = re.compile(r"(?<!`)(`[^`]+`)(?!`)")


def number(value: float | None, digits: int) -> str:
    """With `digits` decimals; a value that rounds to 0 has no sign."""
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float | None, digits: int) -> str:
    """With a sign and `digits` decimals; a value that rounds to 0 has no sign.

    Example:
        >>> signed(1.234, 2), signed(-0.001, 2), signed(None, 2)
        ('+1.23', '0.00', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def milliseconds(value: float | None) -> str:
    """Three significant digits."""
    if value is None or math.isnan(value):
        return DASH
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def megabytes(size: int | None) -> str:
    """In units of a million bytes."""
    return DASH if size is None else f"{size / 1e6:.1f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as percent."""
    return DASH if share is None or math.isnan(share) else f"{100 * share:.{digits}f}"


def seeds_named(seeds: Sequence[int]) -> str:
    """Seeds in words.

    Example:
        >>> seeds_named([0]), seeds_named([0, 1, 2]), seeds_named([0, 4])
        ('seed 0', 'seeds 0 to 2', 'seeds 0, 4')
    """
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def large(count: float | None) -> str:
    """A count with K, M or G.

    Example:
        >>> large(15_896_983), large(720)
        ('15.90 M', '720')
    """
    if count is None:
        return DASH
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= limit:
            return f"{count / limit:.2f} {letter}"
    return f"{count:g}"


def interval(bounds: Sequence[float] | None, digits: int, scale: float = 1.0) -> str:
    """`low to high`."""
    if bounds is None or any(bound is None or math.isnan(bound) for bound in bounds):
        return DASH
    return f"{number(scale * bounds[0], digits)} to {number(scale * bounds[1], digits)}"


def signed_interval(bounds: Sequence[float] | None, digits: int, scale: float = 1.0) -> str:
    """`low to high` of a difference, both with their signs.

    Example:
        >>> signed_interval([-0.0056, 0.012], 2, 100)
        '-0.56 to +1.20'
    """
    if bounds is None or any(bound is None or math.isnan(bound) for bound in bounds):
        return DASH
    return f"{signed(scale * bounds[0], digits)} to {signed(scale * bounds[1], digits)}"


def duration(seconds: float | None) -> str:
    """`48 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds is None:
        return DASH
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def escaped(text: str) -> str:
    r"""A name from outside as Markdown that shows it as it is; what parts the cells of a table, tables escape.

    Example:
        >>> print(escaped("<b> *x* traffic_light _y_ [a](b) [c]"))
        \<b> \*x\* traffic_light \_y\_ [a\](b) [c]
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.splitlines()))


def prose(text: str) -> str:
    r"""A message with names from outside in it as Markdown: what it puts between backticks is code, all else is shown.

    Example:
        >>> print(prose("no file <a> in *x*: run `dvc repro`"))
        no file \<a> in \*x\*: run `dvc repro`
    """
    parts = _CODE.split(" ".join(text.splitlines()))
    return "".join(part if index % 2 else escaped(part) for index, part in enumerate(parts))


def code(text: str) -> str:
    """A name from outside as code, whatever backticks are in it.

    Example:
        >>> print(code("model.onnx"), code("a`b"))
        `model.onnx` ``a`b``
    """
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    apart = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{apart}{text}{apart}{fence}"


def shortened(text: str, length: int = 240) -> str:
    """The beginning of a text too long for a table; the whole is in the JSON."""
    return text if len(text) <= length else text[: length - 3] + "..."
