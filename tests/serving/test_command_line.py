"""The program `contrail`: every verb is its module's command, and serving's verbs start without what trains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving import command_line
from serving.command_line import COMMANDS, STAGES
from serving.contract.errors import UserError

# Nothing of training may be looked for, let alone imported, by what runs on a device.
GUARD = """
import sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise AssertionError(f"{name} is imported")

FORBIDDEN = {"torch", "torchvision", "timm", "yaml", "ruamel", "dvc", "dvclive", "onnx", "scipy", "matplotlib", "rich",
             "psutil", "pipeline", "export", "studies"}
sys.meta_path.insert(0, Guard())
from serving.command_line import script
script()
"""


@pytest.fixture
def call(monkeypatch):
    """Runs the program in this process; returns its exit status."""

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["/usr/bin/contrail", *arguments])
        return command_line.main()

    return call


def run_alone(packages: list[Path], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program where nothing is installed but the standard library and `packages`."""
    for package in packages:
        (folder / package.name).symlink_to(package)
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from serving.command_line import script; script()"
    command = [sys.executable, "-I", "-S", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


VERBS = [[verb] for verb in COMMANDS] + [["stage", stage] for stage in STAGES]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_says_what_it_takes_under_the_name_that_was_typed(call, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        call(*words, "--help")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: contrail {' '.join(words)} [-h]")


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_refuses_what_it_does_not_know(call, capsys, words):
    """What is not read would be ignored: `--help` of a stage that takes nothing once ran the stage."""
    with pytest.raises(SystemExit) as stopped:
        call(*words, "--no-such-option")
    assert stopped.value.code == 2
    assert f"contrail {' '.join(words)}: error: " in capsys.readouterr().err


def test_a_module_run_by_python_goes_by_its_own_name():
    done = subprocess.run([sys.executable, "-m", "serving.infer", "--help"], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: python -m serving.infer [-h]")


def test_the_lists_hold_every_verb_and_every_stage(call, capsys, repository):
    assert call("--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in [*COMMANDS, "stage"])
    assert call() == 2 and capsys.readouterr().err == text
    assert call("stage", "--help") == 0
    text = capsys.readouterr().out
    assert all(f"  {stage} " in text for stage in STAGES)
    modules = {f"{path.parts[0]}.stages.{path.stem}" for path in repository_stages(repository)}
    assert {stage.module for stage in STAGES.values()} == modules
    assert all(stage.module.endswith(f".{name}") for name, stage in STAGES.items())


def repository_stages(repository: Path) -> list[Path]:
    found = [*repository.glob("*/stages/*.py")]
    return [path.relative_to(repository) for path in found if path.stem != "__init__"]


def test_every_command_of_the_packages_has_a_verb(repository):
    found = {
        path.relative_to(repository).with_suffix("").as_posix().replace("/", ".").removesuffix(".__main__")
        for package in ("serving", "pipeline", "export")
        for path in (repository / package).rglob("*.py")
        if "\n    run_command(main)\n" in path.read_text(encoding="utf-8")
    }
    reached = {command.module.removesuffix(".__main__") for command in [*COMMANDS.values(), *STAGES.values()]}
    assert found - {"serving.command_line"} <= reached


def test_arguments_and_exit_status_are_those_of_the_module(call, capsys, engine):
    assert call("inspect", str(engine)) == 0
    assert "weights" in capsys.readouterr().out
    (engine.parent / "manifest.json").unlink()
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(content)
    assert call("inspect", str(engine)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["infre"], "unknown command 'infre'; did you mean 'infer'?"),
        (["stag"], "unknown command 'stag'; did you mean 'stage'?"),
        (["stage", "trian"], "unknown stage 'trian'; did you mean 'train'?"),
        (["--verbose"], "unknown command '--verbose'"),
    ],
)
def test_an_unknown_verb_names_the_nearest(call, words, message):
    with pytest.raises(UserError) as raised:
        call(*words)
    assert str(raised.value).startswith(message)


def test_serving_starts_without_what_trains(engine, photo, tmp_path):
    from serving.images.image_io import write_image

    write_image(tmp_path / "photo.png", photo(32, 64))
    infer = ["infer", str(tmp_path / "photo.png"), "--engine", str(engine), "--output", str(tmp_path / "masks")]
    for arguments in (["--help"], ["--version"], ["stage"], ["infer", "--help"], ["inspect", str(engine)], infer):
        done = subprocess.run(
            [sys.executable, "-c", GUARD, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (2 if arguments == ["stage"] else 0, ""), arguments
    assert (tmp_path / "masks" / "photo.png").exists()
    done = subprocess.run([sys.executable, "-c", GUARD, "check", str(engine)], capture_output=True, text=True)
    assert "AssertionError: export is imported" in done.stderr, "the guard must see what it is there for"


def test_a_verb_that_is_not_installed_names_what_to_install(repository, tmp_path):
    done = run_alone([repository / "serving"], tmp_path, "check", "model.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    expected = "error: contrail check: the package 'export' is not installed; pip install contrail-seg\n"
    assert done.stderr == expected
    done = run_alone([], tmp_path, "--help")
    assert done.returncode == 0 and "  check " in done.stdout


def test_a_verb_whose_own_needs_are_not_installed_names_them(repository, tmp_path):
    packages = [repository / name for name in ("serving", "pipeline", "export")]
    done = run_alone(packages, tmp_path, "stage", "report")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: contrail stage report: the package ")
    assert done.stderr.endswith("is not installed; pip install contrail-seg\n")


def test_a_module_that_is_missing_in_an_installed_package_is_our_mistake_and_no_users(call, monkeypatch):
    monkeypatch.setitem(COMMANDS, "infer", command_line.Command("serving.moved", "gone"))
    with pytest.raises(ModuleNotFoundError, match=r"serving\.moved"):
        call("infer")
