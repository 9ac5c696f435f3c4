"""The README's results block: written between its markers, checked, and nothing else touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.commands.readme import BEGIN, END, main, replace_block
from serving.contract.errors import UserError

GOLDEN = Path(__file__).parents[1] / "report/golden"


def run(monkeypatch, readme, *flags):
    monkeypatch.setattr(
        "sys.argv", ["readme_block", "--report", str(GOLDEN / "report.json"), "--readme", str(readme), *flags]
    )
    return main()


def test_block_is_written_and_the_rest_stays(monkeypatch, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n")
    assert run(monkeypatch, readme, "--check") == 1
    assert "make readme" in capsys.readouterr().out
    assert "old" in readme.read_text()
    assert run(monkeypatch, readme) == 0
    block = (GOLDEN / "readme_block.md").read_text().strip()
    assert readme.read_text() == f"# Title\n\n{BEGIN}\n{block}\n{END}\n\nAfter.\n"
    assert run(monkeypatch, readme, "--check") == 0


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_markers_that_are_not_there_once_in_order_are_refused(text):
    with pytest.raises(UserError, match="once each"):
        replace_block(text, "block", source="README.md")


def test_missing_readme_is_one_message(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        run(monkeypatch, tmp_path / "none.md")


def test_readme_of_this_repository_has_the_markers(repository):
    text = (repository / "README.md").read_text()
    assert replace_block(text, "block", source="README.md").count("block") >= 1
