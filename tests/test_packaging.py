"""What is installed: pins that fit the ranges, one version everywhere, types and the program in the wheel."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
UNLOCKED = {"tensorrt"}  # on NVIDIA's own index


def requirements() -> list[Requirement]:
    """Every direct requirement, of all extras."""
    listed = [
        *PROJECT["dependencies"],
        *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
    ]
    return [Requirement(each) for each in listed]


def locked(text: str) -> dict[str, Requirement]:
    """The pins of a constraints file by name."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): pin for pin in pins}


def version_of(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", pin
    return Version(specifier.version)


LOCK = locked((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_requirement_is_pinned_within_its_range(requirement):
    name = canonicalize_name(requirement.name)
    if name in UNLOCKED:
        assert name not in LOCK
        return
    assert name in LOCK, f"{name} is not in constraints.txt; run `make lock`"
    assert version_of(LOCK[name]) in requirement.specifier, f"{LOCK[name]} is outside {requirement}; run `make lock`"
    assert len(requirement.specifier) == 2 or str(requirement.specifier).startswith("=="), "a range has two ends"


def test_what_is_installed_is_what_is_pinned():
    """Also what the requirements need in turn: nothing may be of a version that another machine would not get."""
    pending = [each for each in requirements() if canonicalize_name(each.name) not in UNLOCKED]
    seen: set[str] = set()
    wrong = []
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if f"{name}{requirement.extras}" in seen:
            continue
        seen.add(f"{name}{requirement.extras}")
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of the extra for another machine
        if name not in LOCK:
            wrong.append(f"{name} is not pinned")
        elif Version(Version(distribution.version).public) != version_of(LOCK[name]):  # 2.13.0+cpu is the same release
            wrong.append(f"{name} {distribution.version} is installed, {version_of(LOCK[name])} is pinned")
        needed = [Requirement(each) for each in distribution.requires or []]
        extras = requirement.extras or {""}
        pending += [
            each for each in needed if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
        ]
    assert len(seen) > 100 and not wrong, wrong


def test_a_pin_without_a_version_is_seen():
    with pytest.raises(AssertionError):
        version_of(locked("numpy>=2  # via scipy\n")["numpy"])
    pins = locked(
        "# header\nPillow==13.0.0   # via torchvision\ntriton==3.7.1 ; sys_platform == 'linux'  # via torch\n"
    )
    assert {name: str(version_of(pin)) for name, pin in pins.items()} == {"pillow": "13.0.0", "triton": "3.7.1"}


def test_one_version_everywhere():
    version = PROJECT["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None and newest[1] == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.slow
def test_the_wheel_holds_the_program_the_types_and_every_package(tmp_path):
    source = tmp_path / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "contrail = serving.command_line:script" in archive.read(entry).decode()
    assert {f"{package}/py.typed" for package in ("serving", "pipeline", "export", "studies", "benchmarks")} <= names
    assert modules <= names and "studies/contrast.yaml" in names
    assert not any(name.startswith(("tests/", "docs/")) for name in names)
