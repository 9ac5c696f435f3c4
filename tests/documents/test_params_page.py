"""docs/params.md: every section, who reads it, and every key with its default."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from pipeline.params import MAPS, SECTIONS
from pipeline.recipes import merge
from serving.contract.schema import Problems, build
from tests.documents.markdown import ROOT, blocks

PAGE = "docs/params.md"
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
NAMED_BY_THE_USER = {*MAPS, "methods"}


def readers() -> dict[str, list[str]]:
    """Section -> the stages that DVC runs for each of its entries, or that have it in `params`."""
    found: dict[str, list[str]] = {name: [] for name in ("profile", *SECTIONS)}
    for stage, entry in STAGES.items():
        body = entry.get("do", entry)
        sections = {str(key).partition(".")[0] for key in body.get("params", [])}
        if "foreach" in entry:
            sections.add(entry["foreach"].removeprefix("${").removesuffix("}"))
        for section in sections:
            found[section].append(stage)
    return found


def test_the_table_of_sections_says_who_reads_each() -> None:
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ((?:`\w+`(?:, )?)+) \|$", text, re.MULTILINE)
    assert {section: re.findall(r"\w+", stages) for section, stages in rows} == readers()


def defaults(config: type[Any]) -> dict[str, Any]:
    """Key -> default of a section, nested as in YAML."""
    problems = Problems()
    built = build(config, {}, "defaults", problems)
    assert built is not None, problems
    values: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_plain(dataclasses.asdict(built))))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def reference() -> dict[str, Any]:
    """The block with every key and its default."""
    found = max((block for block in blocks(PAGE) if block.language == "yaml"), key=lambda block: len(block.text))
    values: dict[str, Any] = yaml.safe_load(found.text)
    return values


def test_it_has_every_section_whose_keys_are_ours() -> None:
    assert reference().keys() == {"profile", *SECTIONS} - NAMED_BY_THE_USER


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in NAMED_BY_THE_USER])
def test_it_has_every_key_and_its_default(section: str) -> None:
    wanted = {section: defaults(SECTIONS.resolve(section))}
    assert reference()[section] == wanted[section], f"{PAGE}: expected\n{yaml.safe_dump(wanted, sort_keys=False)}"


def test_the_three_lists_of_params_yaml_are_those_of_the_page() -> None:
    """The first block of the page stands in params.yaml as it is."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shown = yaml.safe_load(next(block.text for block in blocks(PAGE) if block.language == "yaml"))
    merged = dict(params)
    merge(merged, {section: params[section] | entries for section, entries in shown.items()})
    assert merged == params
