"""Blocks of code: each says what it is, YAML is a valid params.yaml, Python compiles, and what is not run says why."""

from __future__ import annotations

import ast
import copy
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from pipeline.params import read_yaml, validate_params
from pipeline.recipes import merge
from serving.contract.errors import UserError
from tests.documents.decisions import NOT_RUN
from tests.documents.markdown import ROOT, SHELL, Block, blocks, commands, pages

PAGES = pages()
LANGUAGES = {"", "text", "yaml", "python", *SHELL}
ADDED_TO = ("branches", "exports", "compiles")


def with_block(params: Mapping[str, Any], text: str) -> dict[str, Any]:
    """params.yaml as a reader leaves it who writes a block of YAML into it."""
    values: dict[str, Any] = copy.deepcopy(dict(params))
    block = yaml.safe_load(text)
    for section in ADDED_TO:
        values[section] = values[section] | block.pop(section, {})
    merge(values, block)
    return values


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_its_language(page: str) -> None:
    unknown = [f"{page}:{block.line}: {block.language}" for block in blocks(page) if block.language not in LANGUAGES]
    assert not unknown, f"expected one of {LANGUAGES}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_blocks_of_shell(page: str) -> None:
    """Where they are a message's own words, the block says that it is `text`."""
    for block in blocks(page):
        if not block.language:
            assert not [line for line in block.text.splitlines() if line.strip().startswith(("python -m", "make "))]


# Its settings are valid once its code is there: tests/walks/test_page.py.
@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/extending.md"])
def test_every_block_of_yaml_makes_a_valid_params_yaml(page: str) -> None:
    params = read_yaml(ROOT / "params.yaml")
    for block, after in itertools.zip_longest(blocks(page), blocks(page)[1:]):
        if block.language != "yaml" or block.file is not None:
            continue
        if after is not None and " in params.yaml:\n" in after.text:  # the page shows how this is refused
            with pytest.raises(UserError) as caught:
                validate_params(with_block(params, block.text), "params.yaml")
            assert str(caught.value) == after.text.rstrip()
        else:
            validate_params(with_block(params, block.text), f"{page}:{block.line}")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_python_compiles(page: str) -> None:
    for block in blocks(page):
        if block.language == "python" and not block.text.startswith((" ", "# in ")):
            ast.parse(block.text, f"{page}:{block.line}")


def test_commands_that_are_not_run_are_these() -> None:
    found: dict[str, dict[str, str]] = {}
    for page in PAGES:
        for command in commands(page):
            if command.not_run:
                found.setdefault(page, {})[command.text] = command.not_run
    assert found == NOT_RUN


def test_a_command_with_a_placeholder_stands_in_no_block() -> None:
    for page in PAGES:
        assert not [command for command in commands(page) if command.has_placeholder and not command.is_inline]


class TestWhatIsWrongIsFound:
    """Each check beside something that breaks it."""

    def test_a_section_that_nobody_knows(self) -> None:
        params = read_yaml(ROOT / "params.yaml")
        with pytest.raises(UserError, match="unknown section"):
            validate_params(with_block(params, "trian: {iterations: 3}"), "page")

    def test_a_branch_without_its_exports(self) -> None:
        params = read_yaml(ROOT / "params.yaml")
        block = "branches: {contextrast-s1: {method: contextrast, loss: contextrast, seed: 1}}"
        with pytest.raises(UserError, match="a target needs the line"):
            validate_params(with_block(params, block), "page")

    @pytest.mark.parametrize("reason", ["GPU", "network", "second machine"])
    def test_a_block_says_what_it_needs(self, reason: str) -> None:
        assert Block("page", 1, "sh", f"# not run: needs {reason}\nmake test\n").not_run == reason

    @pytest.mark.parametrize("line", ["# not run", "# not run: needs time", "# not run: needs GPUs"])
    def test_other_excuses_do_not_count(self, line: str) -> None:
        assert Block("page", 1, "sh", f"{line}\nmake test\n").not_run is None
