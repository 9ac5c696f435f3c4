"""The examples in docstrings run, and say what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("serving", "pipeline", "export", "studies", "benchmarks")


def modules_with_examples() -> list[str]:
    """Dotted names of the modules whose text has an example."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if ">>> " in path.read_text()]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(found)]
    return [name.removesuffix(".__init__") for name in names]


def run_examples(module: ModuleType) -> doctest.TestResults:
    """Run every example of a module; each docstring starts anew with the module's own names and `np`."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"np": np}):
        runner.run(test)
    return runner.summarize(verbose=False)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_say_what_happens(name):
    results = run_examples(importlib.import_module(name))
    assert results.attempted > 0, "what looks like an example is none"
    assert results.failed == 0, "the output above says which"


def test_there_are_examples():
    assert len(modules_with_examples()) >= 15


def test_an_example_that_lies_is_found(capsys):
    module = ModuleType("lying")
    exec('def twice(x):\n    """Double.\n\n    >>> twice(2)\n    5\n    """\n    return 2 * x\n', module.__dict__)
    module.twice.__module__ = "lying"
    assert run_examples(module) == (1, 1)
    assert "Expected:\n    5\nGot:\n    4" in capsys.readouterr().out
