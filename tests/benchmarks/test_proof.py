"""The proof on a tiny network, for real: methods pass on structure, the trainee shipped whole is found out."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import pytest
import torch

from benchmarks import proof
from benchmarks.proof import KEPT, Settings, experiment_methods, failures, page
from benchmarks.trainees import build, random_images
from export.latency.paired_latency import PairPlan
from export.pages.document import to_markdown
from pipeline.layout.branches import BranchConfig
from pipeline.models.network.config import ModelConfig
from pipeline.params import load_params
from pipeline.training.helpers.help import HelpedStep, HelpOutput
from serving.contract.errors import UserError

TINY = {"tiny": ModelConfig("mobilenetv3_small_100", False, "light", {"width": 16})}
DISTILLED = {"distillation", "similarity"}
BRIEF = PairPlan((8,), 0.0, 2, 0.0)  # the procedure is tested here, not this machine


@pytest.fixture(scope="module")
def result():
    """Of the baseline and the contrast; whatever else training may need is proved by a slow test, arm by arm."""
    methods = {name: load_params().methods[name] for name in ("cross_entropy", "pixel_contrast")}
    return proof.run(TINY, methods, Settings(64, 1, BRIEF))


def test_methods_have_the_baselines_graph_and_the_whole_trainee_has_not(result):
    methods = result["networks"]["tiny"]["certificate"]["methods"]
    assert list(methods) == ["pixel_contrast", KEPT]
    stripped = methods["pixel_contrast"]["structure"]
    assert stripped["verdict"] == "pass", stripped["reasons"]
    assert stripped["identical"]
    kept = methods[KEPT]["structure"]
    assert kept["verdict"] == "fail" and "graph outputs" in kept["first_difference"]
    assert kept["params"] > kept["baseline"]["params"] and kept["flops"] > kept["baseline"]["flops"]


def test_latency_is_measured_in_pairs_beside_a_control(result):
    certificate = result["networks"]["tiny"]["certificate"]
    assert certificate["control"]["pairs"] == 8 and certificate["control"]["ratio"] > 0
    assert all(entry["latency"]["pairs"] == 8 for entry in certificate["methods"].values())


def test_the_page_shows_every_network_and_names_the_negative_control(result):
    text = to_markdown(page(result))
    assert "## tiny: mobilenetv3_small_100, light" in text
    assert "64x64, 1 thread, ONNX Runtime fp32, profile `quick`" in text
    assert f"- `{KEPT}`: structure: multiply-adds: " in text and "flops" not in text
    assert "mIoU" not in text, "untrained networks have none"
    assert f"| `{KEPT}` | fail | different |" in text
    assert to_markdown(page(result, "E7")).startswith("# Zero cost of E7's arms")


def entry(structure, latency, pairs=8):
    verdict = "fail" if "fail" in (structure, latency) else "inconclusive" if latency != "pass" else "pass"
    return {
        "structure": {"verdict": structure},
        "latency": {"verdict": latency, "pairs": pairs},
        "verdict": verdict,
        "reasons": ["a reason"],
    }


@pytest.mark.parametrize(
    ("method", "kept", "failed"),
    [
        (entry("pass", "pass"), entry("fail", "fail"), []),
        (entry("pass", "inconclusive"), entry("fail", "inconclusive"), []),
        (entry("pass", "inconclusive", 0), entry("fail", "inconclusive", 0), []),
        (entry("fail", "pass"), entry("fail", "fail"), ["contrast: a reason"]),
        (entry("pass", "fail"), entry("fail", "fail"), ["contrast: a reason"]),
        (entry("pass", "pass"), entry("pass", "fail"), [f"{KEPT}: its structure was not told from the baseline's"]),
        (entry("pass", "pass"), entry("fail", "pass"), [f"{KEPT}: its latency was not told from the baseline's"]),
    ],
)
def test_what_contradicts_the_claim(method, kept, failed):
    assert failures({"methods": {"contrast": method, KEPT: kept}}) == failed


def test_the_command_writes_both_files_and_fails_with_the_proof(tmp_path, monkeypatch, capsys):
    certificate = {"methods": {"contrast": entry("fail", "pass"), KEPT: entry("fail", "fail")}}
    monkeypatch.setattr(proof, "prove", lambda *_: certificate)
    monkeypatch.setattr(proof, "page", lambda *_: [])
    arguments = ["proof", "--networks", "ocr", "--structure-only", "--json", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert proof.main() == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "proof-networks.json").read_text())
    assert (tmp_path / "proof-networks.md").exists()
    assert printed.err == "FAILED: ocr, contrast: a reason\n"


def test_networks_can_be_certified_one_after_the_other(monkeypatch):
    monkeypatch.setattr(proof, "prove", lambda *_: {"methods": {KEPT: entry("fail", "fail")}})
    settings, saved = Settings(64, 1, None), []
    first = proof.run({"a": TINY["tiny"]}, {}, settings, save=lambda result: saved.append(list(result["networks"])))
    both = proof.run({"b": TINY["tiny"]}, {}, settings, earlier=first)
    assert saved == [["a"]] and list(both["networks"]) == ["a", "b"]
    again = proof.run({"b": TINY["tiny"]}, {}, Settings(64, 1, BRIEF), earlier=both)
    assert {name: each["pairs"] for name, each in again["networks"].items()} == {"a": 0, "b": 8}
    other = proof.run({"b": TINY["tiny"]}, {}, Settings(96, 1, None), earlier=both)
    assert list(other["networks"]) == ["b"], "made with other settings"


def test_the_default_methods_are_those_of_the_matrix_that_contrast(tmp_path, monkeypatch):
    params = load_params()
    params = dataclasses.replace(
        params, branches={name: BranchConfig(name, name, 0) for name in ("cross_entropy", "contextrast")}
    )
    seen = {}
    monkeypatch.setattr(proof, "load_params", lambda: params)
    monkeypatch.setattr(proof, "prove", lambda _, methods, settings: seen.update(methods) or {"methods": {}})
    monkeypatch.setattr(proof, "page", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["proof", "--structure-only", "--output", str(tmp_path)])
    assert proof.main() == 0
    assert list(seen) == ["cross_entropy", "contextrast"]


def test_the_arms_of_an_experiment_are_found_with_their_baseline_first():
    methods = experiment_methods("e7")
    assert next(iter(methods)) == "cross_entropy"
    assert {"ema", "contrast_ema", "tail", "dice", "contrast_dice", "ohem", "contrast_ohem"} < set(methods)
    assert methods["distilled"].teacher is not None and methods["contrast_distilled"].is_contrastive
    assert list(experiment_methods("e8")) == ["labels_only", "labels_only_16", "mean_teacher", "mean_teacher_contrast"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e5", "e7", "e8"])
def test_the_arms_of_an_experiment_have_the_baselines_graph(name):
    methods = experiment_methods(name)
    certificate = proof.run(TINY, methods, Settings(64, 1, None))["networks"]["tiny"]["certificate"]
    for arm in list(methods)[1:]:
        assert certificate["methods"][arm]["structure"]["identical"], arm
    assert certificate["methods"][KEPT]["structure"]["verdict"] == "fail"
    assert failures(certificate) == []


def test_a_helped_step_moves_the_network_and_the_teacher_stays(monkeypatch):
    seen = []
    loss = HelpedStep.loss

    def watched(step: HelpedStep, *arguments: Any) -> HelpOutput:
        seen.append(loss(step, *arguments))
        return seen[-1]

    monkeypatch.setattr(HelpedStep, "loss", watched)
    methods = experiment_methods("e8") | {"distilled": experiment_methods("e7")["distilled"]}
    images = random_images(0)
    plain = build(TINY["tiny"], methods["labels_only"], images, 0).segmentor.state_dict()
    for name, parts in (("mean_teacher", {"pseudo_label", "confident_share"}), ("distilled", DISTILLED)):
        helped = build(TINY["tiny"], methods[name], images, 0).segmentor.state_dict()
        assert seen.pop().statistics.keys() == parts
        assert helped.keys() == plain.keys()
        assert any(not torch.equal(helped[key], plain[key]) for key in plain if key.endswith("weight"))


def test_an_experiment_without_a_contrast_is_refused():
    methods = experiment_methods("e7")
    with pytest.raises(UserError, match="expected a method with contrast"):
        proof.prove(TINY["tiny"], {name: methods[name] for name in ("cross_entropy", "dice")}, Settings(64, 1, None))


def test_a_side_off_the_stride_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["proof", "--side", "100"])
    with pytest.raises(UserError, match="--side in multiples of 32"):
        proof.main()
