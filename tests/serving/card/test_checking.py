"""A folder of engines beside its card and statement: whatever is changed is found and named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.card.checking import CARD_NAME, STATEMENT_NAME, STATEMENT_TYPE, check_folder, shipped_sha256
from serving.contract.errors import UserError
from serving.contract.files import file_sha256
from serving.verify_card import main

FILES = ("onnx_fp32/golden/golden.npz", "onnx_fp32/manifest.json", "onnx_fp32/model.onnx", "onnx_int8/model.onnx")


def sign(folder: Path, **changes: object) -> None:
    """Write the statement of what lies there."""
    names = [CARD_NAME, *FILES]
    subjects = [{"name": name, "digest": {"sha256": file_sha256(folder / name)}} for name in names]
    statement = {"_type": STATEMENT_TYPE, "subject": subjects, "predicateType": "x", "predicate": {}} | changes
    (folder / STATEMENT_NAME).write_text(json.dumps(statement))


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes([index]) * 100)
    rows = "".join(f"| `{name}` | 100 | `{file_sha256(tmp_path / name)}` |\n" for name in FILES)
    (tmp_path / CARD_NAME).write_text(f"# A card\n\n| file | bytes | SHA-256 |\n| --- | ---: | ---: |\n{rows}")
    sign(tmp_path)
    for name in (
        "trained/best.safetensors",
        "onnx_fp32/golden/latency.json",
        "model.sig",
        ".git/HEAD",
        "plan.runtime-cache",
        "onnx_fp32/model.onnx.0123456789abcdef.0123456789abcdef.ep-context",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"may be there")
    (tmp_path / "README.md").write_bytes((tmp_path / CARD_NAME).read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", ["pipe", "link to a folder", "link to nothing", "link to itself"])
def test_what_is_no_file_is_named_and_not_waited_for(folder, kind):
    odd = folder / "onnx_fp32" / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to({"link to a folder": folder, "link to nothing": "nothing", "link to itself": odd}[kind])
    with pytest.raises(
        UserError, match=r"onnx_fp32/odd: expected a file, since all that lies there ships; .*: remove it"
    ):
        shipped_sha256(folder)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_one_bit(folder):
    flip(folder / "onnx_int8/model.onnx")
    return "onnx_int8/model.onnx: changed"


def cut_short(folder):
    path = folder / "onnx_fp32/golden/golden.npz"
    path.write_bytes(path.read_bytes()[:-1])
    return "onnx_fp32/golden/golden.npz: changed"


def remove_a_manifest(folder):
    (folder / "onnx_fp32/manifest.json").unlink()
    return "onnx_fp32/manifest.json: missing"


def add_an_engine(folder):
    (folder / "onnx_fp16").mkdir()
    (folder / "onnx_fp16/model.onnx").write_bytes(b"another")
    return "onnx_fp16/model.onnx: the statement does not name it"


def add_weights_outside_an_engine(folder):
    (folder / "onnx_fp32/model.onnx.data").write_bytes(b"weights")
    return "onnx_fp32/model.onnx.data: the statement does not name it"


def link_a_folder(folder):
    (folder / "onnx_fp16").symlink_to(folder / "onnx_fp32")
    return "onnx_fp16: the statement does not name it"


def edit_the_card(folder):
    (folder / CARD_NAME).write_text((folder / CARD_NAME).read_text().replace("# A card", "# A better card"))
    (folder / "README.md").unlink()
    return f"{CARD_NAME}: changed"


def remove_the_card(folder):
    (folder / CARD_NAME).unlink()
    (folder / "README.md").unlink()
    return f"{CARD_NAME}: missing"


def put_another_engine_into_the_statement(folder):
    flip(folder / "onnx_fp32/model.onnx")
    sign(folder)  # the card still names the engine that was there
    return "onnx_fp32/model.onnx: MODEL_CARD.md says sha256"


def leave_a_file_out_of_the_statement(folder):
    statement = json.loads((folder / STATEMENT_NAME).read_text())
    (folder / statement["subject"].pop()["name"]).unlink()
    (folder / STATEMENT_NAME).write_text(json.dumps(statement))
    return "onnx_int8/model.onnx: MODEL_CARD.md lists it, the statement does not"


def publish_another_page(folder):
    (folder / "README.md").write_text("# A card that promises more\n")
    return "README.md: not a copy of MODEL_CARD.md"


DAMAGES = [
    damage_one_bit,
    cut_short,
    remove_a_manifest,
    add_an_engine,
    add_weights_outside_an_engine,
    link_a_folder,
    edit_the_card,
    remove_the_card,
    put_another_engine_into_the_statement,
    leave_a_file_out_of_the_statement,
    publish_another_page,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_is_found_and_named_alone(folder, damage, capsys):
    assert main([str(folder)]) == 0 and ": pass" in capsys.readouterr().out
    expected = damage(folder)
    assert main([str(folder)]) == 1
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  problem")]
    assert len(printed) == 1 and printed[0].startswith(f"  problem  {expected}")
    assert main([str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "fail" and len(found["problems"]) == 1


def test_all_damages_are_listed_at_once(folder):
    expected = [damage_one_bit(folder), cut_short(folder), remove_a_manifest(folder), add_an_engine(folder)]
    problems = check_folder(folder).problems
    assert len(problems) == 4 and all(any(each.startswith(start) for each in problems) for start in expected)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a\\b", "", "a//b", ".", 3])
def test_a_statement_that_leads_outside_is_refused(folder, name):
    sign(folder, subject=[{"name": name, "digest": {"sha256": "0" * 64}}])
    with pytest.raises(UserError, match="expected a path inside the folder"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a statement"),
        ("[]", "not a statement"),
        ("[" * 100_000, "not a statement"),
        ('{"_type": "https://in-toto.io/Statement/v0.1", "subject": []}', "expected https://in-toto.io/Statement/v1"),
        (json.dumps({"_type": STATEMENT_TYPE}), "no 'subject'"),
        (json.dumps({"_type": STATEMENT_TYPE, "subject": []}), "MODEL_CARD.md is not among them"),
        (
            json.dumps({"_type": STATEMENT_TYPE, "subject": [{"name": "a", "digest": {"sha256": "x"}}]}),
            "64 lowercase hex",
        ),
    ],
    ids=["cut", "list", "deep", "version", "no_subject", "no_card", "digest"],
)
def test_what_is_no_statement_cannot_be_compared_with(folder, text, reason):
    (folder / STATEMENT_NAME).write_text(text)
    with pytest.raises(UserError, match=reason):
        check_folder(folder)


def test_without_folder_or_statement_the_question_cannot_be_put(folder):
    with pytest.raises(UserError, match="no such folder"):
        check_folder(folder / "gone")
    with pytest.raises(UserError, match="not a folder"):
        check_folder(folder / CARD_NAME)
    with pytest.raises(UserError, match="no such folder"):
        check_folder(folder / ("n" * 300))
    (folder / STATEMENT_NAME).unlink()
    with pytest.raises(UserError, match="copy both with the engines"):
        check_folder(folder)


def test_the_command_needs_nothing_but_the_standard_library_and_numpy(folder):
    code = (
        "import sys; from serving.verify_card import main; status = main([sys.argv[1]]); "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'yaml', 'PIL', 'onnx'}))"
        "; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr
