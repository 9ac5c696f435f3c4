"""Recipes: overlays merged into params.yaml."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from export.commands.recipe import apply, main
from pipeline.params import read_yaml, validate_params
from pipeline.recipes import differences, load_recipe, merge, merge_recipe, whole_recipes
from serving.contract.errors import UserError


@pytest.fixture
def params_path(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(repository / "params.yaml", tmp_path / "params.yaml"))


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text)


def test_every_recipe_of_one_file_is_valid_and_says_what_it_is(repository: Path) -> None:
    recipes = whole_recipes(repository / "recipes")
    assert "camvid-cpu" in recipes
    for name, recipe in recipes.items():
        values = read_yaml(repository / "params.yaml")
        merge_recipe(values, load_recipe(name, repository / "recipes"))
        validate_params(values, name)
        assert recipe.summary, name


def test_applying_one_keeps_comments_and_names_the_differences(params_path: Path, tmp_path: Path) -> None:
    write(tmp_path, "mine", "# Mine.\ntrain: {batch_size: 3}\nprepare: {options: {train: 5}}\n")
    before = read_yaml(params_path)["train"]["batch_size"]
    lines, _ = apply("mine", params_path, tmp_path)
    assert f"train.batch_size: {before} -> 3" in lines
    text = params_path.read_text()
    assert "# cuda where torch sees it" in text
    values = yaml.safe_load(text)
    assert values["train"]["batch_size"] == 3
    assert values["prepare"]["options"] == {"train": 5}, "options are replaced whole"
    assert apply("mine", params_path, tmp_path) == ([], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("a: [\n", "not YAML"),
        ("train: {}\ntrain: {}\n", "train: in line 1 and again in line 2; expected it once"),
        ("branches: [a]\n", "branches: "),
        ("branches: {a: 1}\n", "branches"),
    ],
)
def test_bad_params_are_said_and_left_as_they_are(tmp_path: Path, text: str | None, said: str) -> None:
    write(tmp_path, "mine", "train: {batch_size: 3}\n")
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=rf"(?s)params\.yaml.*{said}"):
        apply("mine", path, tmp_path)
    assert (path.read_text() if path.exists() else None) == text


def test_an_unknown_recipe_lists_the_known(params_path: Path, tmp_path: Path) -> None:
    write(tmp_path, "mine", "train: {}\n")
    before = params_path.read_text()
    with pytest.raises(UserError, match=r"(?s)no recipe 'mnie'.*did you mean 'mine'.*  mine"):
        apply("mnie", params_path, tmp_path)
    assert params_path.read_text() == before


@pytest.mark.parametrize("text", ["train: {batchsize: 3}\n", "- a\n", "train: {batch_size: 0}\n", "a: [\n", "\xff"])
def test_a_bad_recipe_changes_nothing(params_path: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(text.encode("latin-1"))
    before = params_path.read_text()
    with pytest.raises(UserError):
        apply("bad", params_path, tmp_path)
    assert params_path.read_text() == before


def test_null_removes_a_named_entry_but_is_a_value_elsewhere() -> None:
    base = {"targets": {"a": {"runtime": "x"}, "b": {"runtime": "y"}}, "resize": [1, 2]}
    merge(base, {"targets": {"a": None}, "resize": None})
    assert base == {"targets": {"b": {"runtime": "y"}}, "resize": None}


def test_differences_are_by_setting() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": 2}
    after = {"a": {"b": 1, "c": [2]}, "e": 3}
    assert list(differences(before, after)) == ["a.c: [1] -> [2]", "d: 2 -> (removed)", "e: (default) -> 3"]


def test_what_is_removed_twice_stays_removed_and_a_name_that_was_never_there_is_told(
    params_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    write(tmp_path / "recipes", "mine", "targets: {openvino_bf16: null, openvino_bf61: null}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["recipe", "apply", "mine"])
    for missing in (["targets.openvino_bf61"], ["targets.openvino_bf16", "targets.openvino_bf61"]):
        assert main() == 0
        told = [line for line in capsys.readouterr().out.splitlines() if "the recipe removes it" in line]
        assert told == [f"{name}: the recipe removes it, and params.yaml has none of that name" for name in missing]
        assert not {"openvino_bf16", "openvino_bf61"} & read_yaml(params_path)["targets"].keys()


def test_a_part_removes_what_the_part_before_it_or_params_yaml_has(tmp_path: Path) -> None:
    parts = {
        "networks/net.yaml": "targets: {a: {runtime: x}, b: {runtime: y}}",
        "datasets/data.yaml": "targets: {a: null, c: null}",
        "methods/pixel_contrast.yaml": "train: {}",
    }
    for name, text in parts.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    overlay = load_recipe("data-net", tmp_path)
    assert overlay["targets"] == {"a": None, "b": {"runtime": "y"}, "c": None}
