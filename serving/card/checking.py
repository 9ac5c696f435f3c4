"""A folder of engines beside its model card and in-toto statement: is it what they say? Reads bytes and runs nothing.

The statement (https://in-toto.io/Statement/v1) names every file of the folder, the card among them, by its SHA-256; the
card names all others in the table of its last section. So an edited card contradicts the statement and an edited
statement the card. Who changes both consistently is found out by a signature alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from serving.contract.errors import UserError, shown
from serving.contract.files import file_sha256, why_no_file

CARD_NAME = "MODEL_CARD.md"
STATEMENT_NAME = "MODEL_CARD.intoto.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
HUB_NAME = "README.md"  # where Hugging Face looks for the card: a copy of it under this name is no further file

# What lies in a folder and is no part of what ships: of the training, of one run or one machine, or about the files.
_NOT_SHIPPED = ("trained",)
_NOT_LISTED = (STATEMENT_NAME, "latency.json", "skipped.json")
_SUFFIXES_NOT_LISTED = (".runtime-cache", ".ep-context", ".sig", ".sigstore", ".sigstore.json")
_MAX_BYTES = 16 * 2**20
# A name is code between as many backticks as it needs, and `\|` in it is what would end the cell.
_ROW = re.compile(r"^\| (`+)(?!`)(.+?)(?<!`)\1 \| \d+ \| `([0-9a-f]{64})` \|$", re.MULTILINE)
_SHA256 = re.compile(r"[0-9a-f]{64}")

Status = Literal["pass", "damaged", "missing", "unlisted"]


@dataclass(frozen=True)
class FileResult:
    """One file.

    Attributes:
        name: relative to the folder, with `/`.
        status: `pass`; `damaged`, its bytes are others; `missing`; `unlisted`, the statement does not name it.
        expected: SHA-256 in the statement; None for what is unlisted.
        found: SHA-256 of the file; None for what is missing or no file.
    """

    name: str
    status: Status
    expected: str | None
    found: str | None


@dataclass(frozen=True)
class CardResult:
    """What was found.

    Attributes:
        folder: that was looked at.
        files: the statement's, then those that it does not name.
        problems: in words, each with the name of its file; empty when all is as it was written.
    """

    folder: Path
    files: tuple[FileResult, ...]
    problems: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether the folder is what card and statement say."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "folder": str(self.folder),
            "verdict": "pass" if self.passed else "fail",
            "files": [vars(each) for each in self.files],
            "problems": list(self.problems),
        }


def shipped_files(folder: Path) -> list[str]:
    """Names of the files below a folder that a statement has to name, sorted, with `/`; the card is not among them.

    Left out are hidden files, the checkpoints of the training, what differs from run to run and signatures. A link to a
    folder counts as a file: what lies behind it is not looked at.
    """
    names = []
    for root, folders, files in os.walk(folder):
        here = Path(root)
        top = here == folder
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in links and not (top and name in _NOT_SHIPPED)
        ]
        for name in [*files, *links]:
            own = top and name in (CARD_NAME, HUB_NAME)
            if not (own or name.startswith(".") or name in _NOT_LISTED or name.endswith(_SUFFIXES_NOT_LISTED)):
                names.append((here / name).relative_to(folder).as_posix())
    return sorted(names)


def shipped_sha256(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of `shipped_files`. Raises UserError where one cannot be read, or is no file (a pipe, a link)."""
    found = {}
    for name in shipped_files(folder):
        if (why := why_no_file(folder / name)) is not None:
            kind = why.partition(";")[0]
            raise UserError(f"{folder / name}: expected a file, since all that lies there ships; {kind}: remove it")
        found[name] = file_sha256(folder / name)
    return found


def check_folder(folder: Path) -> CardResult:
    """Compare every file with what the statement says, and the card with the statement.

    Args:
        folder: that holds `CARD_NAME` and `STATEMENT_NAME`, and below it the engines.

    Raises:
        UserError: there is no such folder, or no statement that can be read.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises for names that are too long
        raise UserError(f"{folder}: {'not a folder' if os.path.lexists(folder) else 'no such folder'}")
    subjects = _read_statement(folder / STATEMENT_NAME)
    results = [_compare(folder, name, expected) for name, expected in subjects.items()]
    unlisted = [name for name in shipped_files(folder) if name not in subjects]
    results += [FileResult(name, "unlisted", None, _hash(folder / name)) for name in unlisted]
    problems = [_problem(each) for each in results if each.status != "pass"]
    card = folder / CARD_NAME
    if why_no_file(card) is None:
        problems += _contradictions(_read(card), subjects)
    copy = folder / HUB_NAME
    if os.path.lexists(copy) and _hash(copy) != subjects[CARD_NAME]:
        problems.append(f"{HUB_NAME}: not a copy of {CARD_NAME}")
    return CardResult(folder, tuple(results), tuple(problems))


def _compare(folder: Path, name: str, expected: str) -> FileResult:
    found = _hash(folder / name)
    status: Status = "missing" if found is None else "pass" if found == expected else "damaged"
    return FileResult(name, status, expected, found)


def _hash(path: Path) -> str | None:
    return file_sha256(path) if why_no_file(path) is None else None


def _problem(file: FileResult) -> str:
    match file.status:
        case "missing":
            return f"{file.name}: missing; the statement names it"
        case "unlisted":
            return f"{file.name}: the statement does not name it: nothing is known of this file"
    return f"{file.name}: changed: sha256 {str(file.found)[:16]}..., the statement says {str(file.expected)[:16]}..."


def _contradictions(card: str, subjects: Mapping[str, str]) -> list[str]:
    """Where the table of the card is not the list of the statement."""
    listed = {_name(written): sha256 for _, written, sha256 in _ROW.findall(card)}
    expected = {shown(name): sha256 for name, sha256 in subjects.items() if name != CARD_NAME}
    problems = [f"{name}: {CARD_NAME} does not list it" for name in expected if name not in listed]
    problems += [f"{name}: {CARD_NAME} lists it, the statement does not" for name in listed if name not in expected]
    problems += [
        f"{name}: {CARD_NAME} says sha256 {listed[name][:16]}..., the statement {sha256[:16]}..."
        for name, sha256 in expected.items()
        if listed.get(name, sha256) != sha256
    ]
    return problems


def _name(written: str) -> str:
    """A name as the card writes it between its backticks."""
    apart = written.startswith(" ") and written.endswith(" ") and written.strip(" ")
    return (written[1:-1] if apart else written).replace("\\|", "|")


def _read_statement(path: Path) -> dict[str, str]:
    """Name -> SHA-256 of all subjects. Raises UserError for what is no statement of a folder."""
    why = why_no_file(path)
    if why is not None:
        raise UserError(f"{path}: {why}; the stage `report` writes it beside {CARD_NAME}: copy both with the engines")
    try:
        statement = json.loads(_read(path))
        if statement["_type"] != STATEMENT_TYPE:
            raise ValueError(f"_type: expected {STATEMENT_TYPE}, got {statement['_type']!r}")
        subjects: dict[str, str] = {}
        for subject in statement["subject"]:
            name, sha256 = subject["name"], subject["digest"]["sha256"]
            if not _is_inside(name) or not _SHA256.fullmatch(sha256):
                raise ValueError(f"subject {name!r}: expected a path inside the folder and 64 lowercase hex digits")
            if name in subjects:
                raise ValueError(f"subject {name!r}: named twice")
            subjects[name] = sha256
        if CARD_NAME not in subjects:
            raise ValueError(f"subject: {CARD_NAME} is not among them")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(f"{path}: not a statement of a folder of engines: {reason}; copy it again") from error
    return subjects


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and name != "."


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes are too many; is it another file?")
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
