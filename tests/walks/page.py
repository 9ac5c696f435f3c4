"""The walks of docs/extending.md: the files, registry lines and settings that add a thing, taken from the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.recipes import merge
from tests.documents.markdown import ROOT, blocks, tokens

PAGE = "docs/extending.md"
_LINES = re.compile(r"# in ([\w/.]+), ([A-Z_]+)\n")


@dataclass(frozen=True)
class Walk:
    """What one walk adds.

    Attributes:
        files: path from the root -> its text.
        lines: (path, registry) -> the lines that go into it.
        params: what goes into params.yaml.
    """

    files: dict[str, str]
    lines: dict[tuple[str, str], str]
    params: dict[str, Any]

    def apply(self, root: Path) -> None:
        """Add it to a copy of the project, as a reader would: new files, registry lines, params.yaml.

        Raises:
            AssertionError: a file is there already, or a registry is not.
        """
        for name, text in self.files.items():
            assert not (root / name).exists(), f"{name} is there already"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        for (name, registry), lines in self.lines.items():
            text = (root / name).read_text(encoding="utf-8")
            added, count = re.subn(
                rf"(^{registry}\b.*?)(^    \}},?$)", rf"\g<1>{lines}\g<2>", text, count=1, flags=re.M | re.S
            )
            assert count == 1, f"{name} has no registry {registry}"
            (root / name).write_text(added, encoding="utf-8")
        if self.params:
            path = root / "params.yaml"
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            for section in ("branches", "exports", "compiles"):
                values[section] = values[section] | self.params.get(section, {})
            merge(
                values,
                {key: value for key, value in self.params.items() if key not in ("branches", "exports", "compiles")},
            )
            path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


@cache
def walks() -> dict[str, Walk]:
    """The walks of the page by their headings, such as `A head`."""
    starts: list[tuple[int, str]] = []
    for before, token in zip(tokens(PAGE), tokens(PAGE)[1:], strict=False):
        if before.type == "heading_open" and before.tag == "h2" and before.map:
            starts.append((before.map[0], token.content))
    found = {}
    for (start, title), end in zip(starts, [*(line for line, _ in starts[1:]), 10**9], strict=True):
        walk = Walk({}, {}, {})
        for block in blocks(PAGE):
            if not start < block.line <= end:
                continue
            registry = _LINES.match(block.text)
            if registry:
                walk.lines[registry[1], registry[2]] = block.text[registry.end() :]
            elif block.file is not None:
                walk.files[block.file] = block.text.partition("\n")[2]
            elif block.language == "yaml":
                walk.params.update(yaml.safe_load(block.text))
        if walk.files:
            found[title] = walk
    assert found, f"{ROOT / PAGE} has no walk"
    return found
