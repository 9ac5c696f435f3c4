"""The papers' recipes: every network on every dataset with every method."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from export.commands import recipe as command
from export.commands.recipe import apply
from pipeline.commands.describe import count_classes
from pipeline.layout.branches import methods_of
from pipeline.losses import LOSSES
from pipeline.models.network.segmentor import build_segmentor
from pipeline.params import Params, read_yaml, validate_params
from pipeline.recipes import (
    DEFAULT_METHOD,
    all_recipes,
    composed_recipes,
    load_recipe,
    merge_recipe,
    parts,
    recipe_names,
    rendered_list,
    summary,
    whole_recipes,
)
from pipeline.training.assembly import attach_training_heads, build_loss_term
from pipeline.training.inputs import pad_to_stride
from serving.contract.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes"

DATASETS, NETWORKS, METHODS = (list(parts(kind, FOLDER)) for kind in ("datasets", "networks", "methods"))

# Crop, batch, iterations, learning rate, classes and training images of each dataset, as published.
PUBLISHED = {
    "cityscapes": ((512, 1024), 8, 40_000, 0.01, 19, 2975),
    "ade20k": ((512, 512), 12, 80_000, 0.01, 150, 20_210),
    "pascal-context": ((512, 512), 16, 60_000, 0.01, 59, 4998),
    "coco-stuff": ((512, 512), 16, 60_000, 0.01, 171, 9000),
    "camvid": ((360, 480), 16, 6_000, 0.02, 11, 367),
}


@cache
def with_recipes(*names: str) -> Params:
    """The committed params.yaml with recipes merged into it one after another."""
    values = read_yaml(ROOT / "params.yaml")
    for name in names:
        merge_recipe(values, load_recipe(name, FOLDER))
    return validate_params(values, " and ".join(names))


def in_use(params: Params) -> Params:
    """Without the methods that the matrix does not name."""
    methods = {name: method for name, method in params.methods.items() if name in methods_of(params.branches)}
    return dataclasses.replace(params, methods=methods)


def cells() -> list[Any]:
    """Every dataset with every network; all but the small networks on two datasets are slow."""
    found = []
    for data, name in itertools.product(DATASETS, NETWORKS):
        quick = name in ("lite0", "mobilenetv3") and data in ("camvid", "cityscapes")
        found.append(pytest.param(data, name, marks=() if quick else pytest.mark.slow))
    return found


def test_names_are_composed_and_no_two_recipes_share_one() -> None:
    cells = len(DATASETS) * len(NETWORKS)
    assert len(composed_recipes(FOLDER)) == cells * (len(METHODS) + 1) * 2
    assert not composed_recipes(FOLDER).keys() & whole_recipes(FOLDER).keys()
    assert set(DATASETS) == set(PUBLISHED)
    assert {"deeplabv3", "hrnet48", "ocr"} <= set(NETWORKS)
    assert "cityscapes-hrnet48-contextrast" in all_recipes(FOLDER)


def test_the_default_method_may_be_left_out() -> None:
    assert with_recipes("ade20k-lite0") == with_recipes(f"ade20k-lite0-{DEFAULT_METHOD}")


@pytest.mark.parametrize("data", DATASETS)
def test_settings_are_the_published_ones(data: str) -> None:
    crop, batch, iterations, rate, classes, _ = PUBLISHED[data]
    params = with_recipes(f"{data}-hrnet48")
    train = params.train
    assert (train.augment.crop, train.batch_size, train.iterations) == (crop, batch, iterations)
    assert (train.optimizer.name, train.optimizer.learning_rate, train.optimizer.momentum) == ("sgd", rate, 0.9)
    assert (train.optimizer.weight_decay, train.schedule.power, train.schedule.warmup_fraction) == (5e-4, 0.9, 0)
    assert (train.augment.scale, train.augment.flip_probability) == ((0.5, 2.0), 0.5)
    assert count_classes(params.prepare) == classes
    assert params.prepare.root == f"$CONTRAIL_{data.upper().replace('-', '_')}"
    assert params.evaluate.protocol.plain
    # The split that selects a checkpoint is not the one that is reported on.
    assert (params.evaluate.split, train.checkpoint) in {("val", "last"), ("test", "best")}
    published = with_recipes(f"{data}-hrnet48-published")
    assert str(published.evaluate.protocol) == "multi-scale 0.5, 0.75, 1, 1.25, 1.5, 1.75, with flip"
    assert dataclasses.replace(published, evaluate=params.evaluate) == params


def test_every_loss_is_a_method_of_the_recipes() -> None:
    losses = set()
    for method in METHODS:
        params = with_recipes(f"cityscapes-hrnet48-{method}")
        assert params.deploy.method == method
        assert methods_of(params.branches) == list(dict.fromkeys(("cross_entropy", method)))
        losses.add(params.methods[method].loss)
    assert losses == set(LOSSES)


def test_methods_are_as_specified() -> None:
    pixel = with_recipes("cityscapes-hrnet48").methods["pixel_contrast"]
    assert (pixel.settings.temperature, pixel.settings.base_temperature, pixel.settings.weight) == (0.1, 0.07, 0.1)
    assert (pixel.settings.max_samples, pixel.settings.max_views, pixel.settings.memory) == (1024, 100, "none")
    assert pixel.term_iterations(40_000) == range(5000, 40_000)
    memory = with_recipes("cityscapes-hrnet48-pixel_contrast_memory").methods["pixel_contrast_memory"].settings
    assert (memory.memory, memory.pixels_per_region) == ("both", 10)
    small = with_recipes("camvid-hrnet48-pixel_contrast_memory").methods
    assert {small[name].settings.max_views for name in ("pixel_contrast", "pixel_contrast_memory")} == {50}
    contextrast = with_recipes("cityscapes-hrnet48-contextrast").methods["contextrast"].settings
    assert contextrast.layer_weights == (1.0, 0.7, 0.4, 0.1)
    for teacher in ("lite2", "deeplabv3", "hrnet48"):
        taught = with_recipes(f"camvid-lite0-distilled_{teacher}").methods[f"distilled_{teacher}"].teacher
        assert taught is not None and taught.path == f"teachers/{teacher}" and taught.sha256 == 64 * "0"
        assert (taught.weight, taught.similarity_weight, taught.similarity_temperature) == (1.0, 1.0, 0.1)
    successor = with_recipes("cityscapes-hrnet48-contextrast_pp").methods["contextrast_pp"].settings
    assert (successor.layer_weights, successor.anchor_bank_size) == ((1.0, 0.7, 0.3, 0.1), 100)


@pytest.mark.parametrize("data", DATASETS)
def test_memory_banks_fit_the_number_of_classes(data: str) -> None:
    params = with_recipes(f"{data}-lite0-pixel_contrast_memory")
    classes, images = PUBLISHED[data][-2:]
    with torch.device("meta"):
        method = build_loss_term(
            params.methods["pixel_contrast_memory"], num_classes=classes, ignore_index=255, training_images=images
        )
    assert any(buffer.numel() >= classes * images for buffer in method.buffers())


@pytest.mark.parametrize(("data", "name"), cells())
def test_networks_are_built_with_every_methods_training_heads(data: str, name: str) -> None:
    params = with_recipes(f"{data}-{name}")
    classes = count_classes(params.prepare)
    with torch.device("meta"):
        segmentor = build_segmentor(dataclasses.replace(params.model, pretrained=False), classes, seed=0)
    assert segmentor.num_classes == classes
    height, width = params.train.augment.crop
    assert min(height, width) >= 4 * segmentor.stride, "the crop leaves hardly a pixel at the deepest stage"
    images, labels = torch.empty(2, 3, height, width, device="meta"), torch.empty(2, height, width, device="meta")
    padded, _ = pad_to_stride(images, labels, stride=segmentor.stride, ignore_index=255)
    assert data == "camvid" or padded.shape == images.shape, "only CamVid's own size is no multiple of 32"
    with torch.device("meta"):
        logits = segmentor(padded)
        assert logits.shape[:2] == (2, classes)
        for method in METHODS:
            config = with_recipes(f"{data}-{name}-{method}").methods[method]
            loss = build_loss_term(config, num_classes=classes, ignore_index=255, training_images=1)
            trainee = attach_training_heads(segmentor, loss, auxiliary=True, seed=0)
            assert trainee.segmentor is segmentor


def test_a_recipe_gives_the_same_settings_whatever_was_applied_before() -> None:
    """Recipes are merged into params.yaml one after another: nothing of an earlier one may stay in force."""
    after = [f"{data}-{name}" for data, name in zip(itertools.cycle(DATASETS), NETWORKS, strict=False)]
    after += [f"{data}-ocr-{method}" for data, method in zip(itertools.cycle(DATASETS), METHODS, strict=False)]
    # `smoke` is for scratch copies: it takes targets away, which no recipe puts back.
    others = [name for name in whole_recipes(FOLDER) if name != "smoke"]
    after += others
    before = [
        *others,
        "camvid-deeplabv3-pixel_contrast_memory-published",
        "coco-stuff-mobilenetv2",
        "cityscapes-hrnet48",
    ]
    for first, second in itertools.product(before, after):
        assert in_use(with_recipes(first, second)) == in_use(with_recipes(second)), f"{second} after {first}"


@pytest.mark.slow
@pytest.mark.parametrize("data", DATASETS)
def test_every_recipe_is_valid(data: str) -> None:
    for name in composed_recipes(FOLDER):
        if name.startswith(f"{data}-"):
            with_recipes(name)


def test_every_recipe_is_listed_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["recipes", "list"])
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    said = dict(line.split(maxsplit=1) for line in lines if line.startswith("  "))
    assert set(said) == {*recipe_names(FOLDER), *(f"-{name}" for name in METHODS), "-published"}
    assert said["cityscapes-hrnet48"] == (
        "HRNetV2-W48 on Cityscapes, 19 classes: 512x1024 crops, batch 8, 40 000 iterations"
    )
    for kind in ("datasets", "networks", "methods", "evaluation"):
        assert all(summary(path) for path in parts(kind, FOLDER).values())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cityscapes-hrnet84", "cityscapes-hrnet48"),
        ("cityscapes-hrnet48-contextrats", "cityscapes-hrnet48-contextrast"),
        ("pascal_context-ocr", "pascal-context-ocr"),
    ],
)
def test_an_unknown_name_is_refused_with_the_list(name: str, meant: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(name, FOLDER)
    message = str(caught.value)
    assert message.startswith(f"no recipe {name!r}; did you mean {meant!r}?; recipes:\n")
    assert rendered_list(FOLDER) in message


NO_RECIPES = [
    "",
    "-",
    "cityscapes",
    "hrnet48",
    "cityscapes-published",
    "../params",
    "datasets/camvid",
    "cityscapes-hrnet48-published-contextrast",
]


@pytest.mark.parametrize("name", NO_RECIPES)
def test_what_is_no_recipe_is_none(name: str) -> None:
    with pytest.raises(UserError, match="no recipe"):
        load_recipe(name, FOLDER)


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("datasets/cityscapes", "batch_size", "batchsize", "train.batchsize: unknown key; did you mean 'batch_size'"),
        ("datasets/cityscapes", "dataset: cityscapes", "dataset: cityscape", "did you mean 'cityscapes'"),
        ("networks/hrnet48", "hrnet_w48", "hrnet_w84", "did you mean 'hrnet_w48'"),
        ("networks/hrnet48", "head: hrnet", "head: light", "does not go with the backbone"),
        ("methods/contextrast", "temperature", "tau", "methods.contextrast.tau: unknown key"),
        ("methods/contextrast", "deploy: {method: contextrast}", "deploy: {method: contxtrast}", "deploy.method"),
        ("methods/contextrast", "loss: contextrast", "loss: contextrst", "did you mean 'contextrast'"),
    ],
)
def test_a_mistyped_part_is_refused_and_changes_nothing(
    tmp_path: Path, part: str, old: str, new: str, message: str
) -> None:
    params_path = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    folder = Path(shutil.copytree(FOLDER, tmp_path / "recipes"))
    text = (folder / f"{part}.yaml").read_text()
    assert old in text
    (folder / f"{part}.yaml").write_text(text.replace(old, new))
    before = params_path.read_text()
    with pytest.raises(UserError, match=message):
        apply("cityscapes-hrnet48-contextrast", params_path, folder)
    assert params_path.read_text() == before


def test_what_is_written_reads_as_params_yaml_does(tmp_path: Path) -> None:
    params_path = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    apply("cityscapes-hrnet48-contextrast-published", params_path, FOLDER)
    text = params_path.read_text()
    assert "  scales: [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]\n" in text
    assert "  output_stride: null\n" in text
    assert "# cuda where torch sees it" in text


def test_an_installed_package_without_recipes_says_so(tmp_path: Path) -> None:
    for ask in (all_recipes, rendered_list, lambda folder: load_recipe("smoke", folder)):
        with pytest.raises(UserError, match=r"no such folder in .*: recipes are part of the repository"):
            ask(tmp_path / "recipes")
