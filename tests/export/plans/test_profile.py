"""Shapes of plans: those that params.yaml names, and for the rest those of the dataset."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.checks.examination.images import LARGEST_BATCH
from export.latency.config import BenchmarkConfig
from export.plans.profile import MAX_PIXELS, plan_profile
from export.targets.plan_build import PlanBuild
from pipeline.params import read_yaml, validate_params
from pipeline.recipes import all_recipes, load_recipe, merge_recipe, recipe_names
from serving.contract.errors import UserError
from serving.contract.manifest import InputSpec

ROOT = Path(__file__).resolve().parents[3]
SPEC = InputSpec(stride=32)
# Heights and widths as the datasets are published, the largest and the most common; ADE20K's and COCO's vary.
SIZES = {
    "streets": [(192, 256)],
    "camvid": [(720, 960)],
    "camvid32": [(720, 960)],
    "folder": [(480, 640), (1080, 1920)],
    "cityscapes": [(1024, 2048)],
    "ade20k": [(512, 683), (512, 683), (256, 256), (1920, 2560)],
    "pascal_context": [(375, 500), (375, 500), (500, 375), (500, 500)],
    "coco_stuff": [(480, 640), (480, 640), (640, 480), (640, 640)],
}
SIDES = st.integers(1, 4000)


def never():
    raise AssertionError("the dataset was opened although every shape is named")


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=20), st.sampled_from([8, 16, 32]))
def test_a_plan_takes_every_image_of_the_dataset_from_one_stride_on(sizes, stride):
    profile = plan_profile(PlanBuild(), InputSpec(stride=stride), lambda: sizes)
    assert profile.min == (1, stride, stride, 3)
    for height, width in sizes:
        for batch in (1, 2):
            assert profile.holds((batch, height + -height % stride, width + -width % stride, 3))
    batch, height, width, _ = profile.max
    assert batch <= LARGEST_BATCH and (batch == 2 or batch * height * width <= MAX_PIXELS)
    assert not profile.holds((1, height + stride, width, 3)) and not profile.holds((1, height, width + stride, 3))


def test_the_best_shape_is_that_of_most_images():
    profile = plan_profile(PlanBuild(), SPEC, lambda: SIZES["pascal_context"])
    assert (profile.opt, profile.max) == ((1, 384, 512, 3), (8, 512, 512, 3))
    resized = plan_profile(PlanBuild(), InputSpec(stride=32, resize=(240, 320)), lambda: SIZES["camvid"])
    assert (resized.opt, resized.max) == ((1, 256, 320, 3), (8, 256, 320, 3))
    assert plan_profile(PlanBuild(), SPEC, lambda: SIZES["cityscapes"]).max == (8, 1024, 2048, 3)


def test_named_shapes_override_and_those_of_the_dataset_give_way():
    named = PlanBuild(min=(1, 64, 64), opt=(1, 64, 96), max=(2, 128, 128))
    profile = plan_profile(named, SPEC, never)
    assert (profile.min, profile.opt, profile.max) == ((1, 64, 64, 3), (1, 64, 96, 3), (2, 128, 128, 3))
    smaller = plan_profile(PlanBuild(max=(4, 512, 512)), SPEC, lambda: SIZES["cityscapes"])
    assert (smaller.opt, smaller.max) == ((1, 512, 512, 3), (4, 512, 512, 3))
    larger = plan_profile(PlanBuild(min=(2, 256, 512), opt=(2, 512, 512)), SPEC, lambda: SIZES["streets"])
    assert (larger.min, larger.opt, larger.max) == ((2, 256, 512, 3), (2, 512, 512, 3), (8, 512, 512, 3))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (PlanBuild(opt=(1, 100, 96)), r"build\.opt: expected height and width in multiples of 32, got \[1, 100, 96\]"),
        (PlanBuild(max=(8, 512, 500)), r"build\.max: expected .* got \[8, 512, 500\]"),
    ],
)
def test_a_shape_off_the_stride_is_refused(build, expected):
    with pytest.raises(UserError, match=expected):
        plan_profile(build, SPEC, lambda: SIZES["streets"])


def test_no_image_to_fit_to_is_refused():
    with pytest.raises(UserError, match="no image to fit the plan's shapes to; name min, opt and max"):
        plan_profile(PlanBuild(), SPEC, list)


def test_every_recipe_with_a_compiled_target_builds_a_plan_that_fits_its_dataset():
    found = set()
    # Without the methods: what is compiled, and the sizes of the images, are those of dataset and evaluation.
    names = [name for cell in recipe_names(ROOT / "recipes") for name in (cell, f"{cell}-published")]
    for name in sorted(set(names) & all_recipes(ROOT / "recipes").keys()):
        values = read_yaml(ROOT / "params.yaml")
        merge_recipe(values, load_recipe(name, ROOT / "recipes"))
        params = validate_params(values, name)
        sizes = SIZES[params.prepare.dataset]
        for target in params.targets.values():
            if target.compiled:
                spec = InputSpec(stride=32, resize=params.evaluate.resize)
                profile = plan_profile(target.build, spec, functools.partial(list, sizes))
                for height, width in [params.evaluate.resize] if params.evaluate.resize else sizes:
                    assert profile.holds((1, height + -height % 32, width + -width % 32, 3)), name
                assert profile.min == (1, 32, 32, 3)
                large = params.prepare.dataset == "ade20k"
                assert profile.max[0] == (3 if large else max(BenchmarkConfig().batch_sizes))
                found.add(params.prepare.dataset)
    assert {"cityscapes", "ade20k", "pascal_context", "coco_stuff", "camvid"} <= found
