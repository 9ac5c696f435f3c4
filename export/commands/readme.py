"""Write the results block of the README from a report: `python -m export.commands.readme`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from export.pages.document import to_markdown
from export.report.page import readme_page
from export.report.report import load_report
from pipeline.layout.paths import REPORTS_DIR
from serving.contract.command import program_name
from serving.contract.errors import UserError, run_command
from serving.contract.files import atomic_path

BEGIN = "<!-- results:begin -->"
END = "<!-- results:end -->"


def replace_block(text: str, block: str, *, source: str) -> str:
    """`text` with everything between the two markers replaced by `block`; the markers stay.

    Args:
        text: of the page.
        block: Markdown.
        source: name of the page, for messages.

    Raises:
        UserError: the markers are not there exactly once each, in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f"{source}: expected {BEGIN} and {END} once each, in this order; put the two lines where the results belong"
        )
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    return f"{head}{BEGIN}\n{block.strip()}\n{END}{tail}"


def main() -> int:
    """Rewrite the block, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(prog=program_name("export.commands.readme"), description=__doc__)
    parser.add_argument("--report", type=Path, default=REPORTS_DIR / "report.json")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the block is not up to date")
    arguments = parser.parse_args()
    block = to_markdown(readme_page(load_report(arguments.report)))
    try:
        text = arguments.readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{arguments.readme}: cannot be read: {error}") from None
    updated = replace_block(text, block, source=str(arguments.readme))
    if updated == text:
        return 0
    if arguments.check:
        sys.stdout.write(
            f"{arguments.readme}: the results block is not that of {arguments.report}; run `make readme`\n"
        )
        return 1
    with atomic_path(arguments.readme) as temporary:
        temporary.write_text(updated, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
