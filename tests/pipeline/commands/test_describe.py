"""`python -m pipeline.commands.describe`: what trains and what ships."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.commands import describe as command
from pipeline.commands.describe import MethodDescription, count_classes, describe_networks, rendered
from pipeline.data.preparing.config import PrepareConfig
from pipeline.models.network.config import ModelConfig
from pipeline.params import read_yaml
from pipeline.recipes import parts, whole_recipes
from pipeline.training.assembly import build_loss_term
from pipeline.training.methods import build_methods
from serving.contract.errors import UserError
from serving.contract.schema import Problems

METHODS = build_methods(
    {"cross_entropy": {"loss": "cross_entropy"}, "pixel_contrast": {"loss": "pixel_contrast"}}, None, Problems()
)
SMALL = ModelConfig(backbone="mobilenetv3_small_100", pretrained=False)


FCN = ModelConfig(backbone="mobilenetv3_small_100", head="fcn", pretrained=False)
NETWORKS = {"light": SMALL, "fcn": FCN}


@cache
def describe_small(method: str, network: str = "light", **changes: Any) -> MethodDescription:
    settings = {"num_classes": 5, "size": (64, 96), "batch_size": 2, "auxiliary": True} | changes
    return describe_networks(NETWORKS[network], METHODS[method], name=method, **settings)


@pytest.fixture
def project(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and the recipes, made the working directory."""
    shutil.copy(repository / "params.yaml", tmp_path)
    shutil.copytree(repository / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["describe", *arguments])
    assert command.main() == 0
    return capsys.readouterr().out


def test_what_ships_does_not_depend_on_the_method() -> None:
    plain, contrasted = describe_small("cross_entropy"), describe_small("pixel_contrast")
    assert plain.shipped == contrasted.shipped
    assert contrasted.training.parameters > plain.training.parameters == plain.shipped.parameters
    assert contrasted.training.multiply_adds > plain.training.multiply_adds == plain.shipped.multiply_adds
    assert contrasted.training.activation_bytes > plain.training.activation_bytes > plain.shipped.activation_bytes


@pytest.mark.parametrize("method", list(METHODS))
def test_parts_add_up_to_the_whole(method: str) -> None:
    description = describe_small(method, "fcn")
    for network in (description.training, description.shipped):
        assert sum(part.parameters for part in network.modules) == network.parameters
        assert sum(part.multiply_adds for part in network.modules) == network.multiply_adds
    names = [part.name for part in description.training.modules]
    assert "training_heads.auxiliary" in names
    assert ("training_heads.projections.0" in names) == (method == "pixel_contrast")
    without = describe_small(method, "fcn", auxiliary=False)
    assert "training_heads.auxiliary" not in [part.name for part in without.training.modules]


def test_sizes_are_rounded_up_to_the_stride_and_costs_are_per_image() -> None:
    description = describe_small("pixel_contrast", size=(33, 90), batch_size=3)
    exact = describe_small("pixel_contrast")
    assert description.training.input == (3, 3, 64, 96)
    assert description.shipped.input == (1, 3, 64, 96)
    assert exact.training.multiply_adds == description.training.multiply_adds
    assert 3 * exact.training.activation_bytes == pytest.approx(2 * description.training.activation_bytes, rel=0.01)


@pytest.mark.slow
def test_the_largest_network_is_described_without_being_run_or_its_weights_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(nn.Module, "cuda", refuse)
    model = ModelConfig(backbone="hrnet_w48", head="ocr", pretrained=True)
    description = describe_networks(
        model,
        METHODS["pixel_contrast"],
        name="pixel_contrast",
        num_classes=19,
        size=(1024, 2048),
        batch_size=8,
        auxiliary=True,
    )
    assert description.shipped.parameters == 70_372_166
    assert description.shipped.multiply_adds == pytest.approx(1.298e12, rel=1e-3)


def test_the_command_prints_what_the_json_holds(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run(monkeypatch, capsys)
    values = json.loads(run(monkeypatch, capsys, "--json"))
    assert {"training", "shipped"} <= values.keys()
    for network in ("training", "shipped"):
        assert {"modules", "parameters", "multiply_adds", "activation_bytes"} <= values[network].keys()
        assert f"{values[network]['parameters']:,}" in text
        assert f"{values[network]['multiply_adds']:,}" in text
        for part in values[network]["modules"]:
            assert part["name"] in text
    assert all(len(line) <= 120 for line in text.splitlines())


def test_a_memory_bank_is_told_for_the_images_that_there_are(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = ("--method", "pixel_contrast_bank")
    assert "memory bank" not in run(monkeypatch, capsys)
    assert "memory bank: as the number of training images makes it" in run(monkeypatch, capsys, *bank)
    values = json.loads(run(monkeypatch, capsys, *bank, "--images", "40", "--json"))
    method = read_yaml(project / "params.yaml")["methods"]["pixel_contrast_bank"]
    built = build_methods({"bank": method}, None, Problems())["bank"]
    term = build_loss_term(built, num_classes=values["num_classes"], ignore_index=255, training_images=40)
    assert values["bank_bytes"] == sum(buffer.nbytes for buffer in term.buffers()) > 0
    (project / "data/prepared").mkdir(parents=True)
    prepared = {"dataset": "streets", "splits": {"train": [{}] * 40}}
    (project / "data/prepared/dataset.json").write_text(json.dumps(prepared))
    text = run(monkeypatch, capsys, *bank)
    assert f"memory bank: {values['bank_bytes'] / 2**20:,.1f} MiB for 40 training images" in text


def test_unlabelled_images_are_in_the_batch() -> None:
    values = {
        name: {"loss": "cross_entropy", "mean_teacher": {"unlabelled_batch_size": size}}
        for name, size in (("same", None), ("three", 3))
    }
    methods = build_methods(values, None, Problems())
    settings = {"num_classes": 5, "size": (64, 96), "batch_size": 2, "auxiliary": True}
    found = {name: describe_networks(SMALL, method, name=name, **settings) for name, method in methods.items()}
    assert {name: each.training.input[0] for name, each in found.items()} == {"same": 4, "three": 5}


def test_recipe_method_and_size_change_what_is_described(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "recipes" / "mine.yaml").write_text("# Mine.\nmodel: {backbone: mobilenetv2_100}\n")
    values = json.loads(
        run(monkeypatch, capsys, "--json", "--recipe", "mine", "--method", "cross_entropy", "--size", "60", "60")
    )
    assert values["backbone"] == "mobilenetv2_100"
    assert values["method"] == "cross_entropy"
    assert values["shipped"]["input"] == [1, 3, 64, 64]
    assert "mobilenetv2_100" not in (project / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "camvid-cqu"], "no recipe 'camvid-cqu'; did you mean 'camvid-cpu'"),
        (["--method", "pixel_contrsat"], "no method 'pixel_contrsat'.*did you mean 'pixel_contrast'"),
        (["--size", "0", "64"], r"--size: expected a height and a width of at least 1, got \[0, 64\]"),
    ],
)
def test_mistakes_are_one_clear_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["describe", *arguments])
    with pytest.raises(UserError, match=message):
        command.main()


def test_a_dataset_of_fixed_classes_needs_no_files_and_a_folder_names_its_own(tmp_path: Path) -> None:
    assert count_classes(PrepareConfig(dataset="camvid", root="$NOT_SET_ANYWHERE_AT_ALL")) == 11
    with pytest.raises(UserError, match="NOT_SET_ANYWHERE_AT_ALL is not set"):
        count_classes(PrepareConfig(dataset="folder", root="$NOT_SET_ANYWHERE_AT_ALL"))
    (tmp_path / "classes.txt").write_text("road\nsky\ncar\n")
    assert count_classes(PrepareConfig(dataset="folder", root=str(tmp_path))) == 3


def test_the_text_names_both_networks() -> None:
    text = rendered(describe_small("pixel_contrast"))
    assert text.index("training, input [2, 3, 64, 96]") < text.index("shipped, input [1, 3, 64, 96]")
    assert "only in training:" in text


RECIPES = Path(__file__).resolve().parents[3] / "recipes"


# One dataset stands for all: classes and crop change the numbers and not what is counted.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*whole_recipes(RECIPES), *(f"camvid-{network}-contextrast_pp" for network in parts("networks", RECIPES))]
)
def test_every_network_of_the_recipes_can_be_described(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(run(monkeypatch, capsys, "--json", "--recipe", name))
    assert values["training"]["parameters"] >= values["shipped"]["parameters"] > 0
