"""The section `methods`: loss terms with their settings, and supervised terms beside them."""

from __future__ import annotations

from pipeline.losses.supervised.dice import DiceConfig
from pipeline.losses.supervised.loss import SupervisedEntry
from pipeline.training.methods import build_methods
from serving.contract.schema import Problems


def test_supervised_terms_stand_beside_any_loss() -> None:
    problems = Problems()
    methods = build_methods(
        {
            "baseline": {"loss": "cross_entropy"},
            "dice": {"loss": "cross_entropy", "supervised": [{"term": "dice", "weight": 0.5}]},
            "both": {"loss": "pixel_contrast", "max_views": 8, "supervised": [{"term": "dice"}]},
        },
        100,
        problems,
    )
    assert not problems
    assert methods["baseline"].supervised == ()
    assert methods["dice"].supervised == (SupervisedEntry("dice", DiceConfig(weight=0.5)),)
    assert methods["both"].settings.max_views == 8
    assert [method.is_contrastive for method in methods.values()] == [False, False, True]


def test_all_problems_of_all_methods_are_told_at_once() -> None:
    problems = Problems()
    build_methods(
        {
            "a": {"loss": "pixel_contrst", "supervised": [{"term": "dise"}]},
            "b": {"loss": "pixel_contrast", "supervized": [], "end_fraction": 2, "weight": 0},
            "c": {"loss": "pixel_contrast", "warmup_fraction": 0.5, "end_fraction": 0.5},
            "d": {"loss": "cross_entropy", "supervised": False},
            "e": {"loss": "cross_entropy", "supervised": None},
        },
        100,
        problems,
    )
    assert problems == [
        "methods.a.supervised[0].term: unknown supervised term 'dise'; did you mean 'dice'?",
        "methods.a.loss: unknown loss 'pixel_contrst'; did you mean 'pixel_contrast'?",
        "methods.b.supervized: unknown key; did you mean 'supervised'?",
        "methods.b: weight: expected above 0, got 0.0",
        "methods.b: end_fraction: expected in (0, 1], got 2.0",
        "methods.c.warmup_fraction: 0.5 up to end_fraction 0.5 of 100 iterations leaves the loss term no step; "
        "lower it, raise end_fraction or train on",
        "methods.d.supervised: expected a list of terms such as [{term: dice, weight: 1.0}], got False",
    ]
