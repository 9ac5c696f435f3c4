"""The benchmark of the losses: its parts are right, and it runs at a tiny size."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import benchmarks.losses.__main__ as losses
from benchmarks.losses.__main__ import Target
from benchmarks.losses.cases import QUICK, PixelCase, tiled_products
from benchmarks.losses.curves import Curve, plot_curves
from benchmarks.losses.per_group_contrast import per_group_contrast
from benchmarks.losses.timing import interleave, peak_extra_bytes
from benchmarks.losses.training_step import TrainingStepCase
from pipeline.losses.shared.info_nce import info_nce
from pipeline.losses.shared.sampling import sample_anchors

CPU = torch.device("cpu")


def test_the_published_loop_computes_the_same_loss() -> None:
    """Where all embeddings of a class are equal, the random choice of anchors does not matter."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 12, 12), generator=generator)
    predictions = torch.randint(0, 4, (2, 12, 12), generator=generator)
    prototypes = F.normalize(torch.randn(4, 6, generator=generator, dtype=torch.float64), dim=1)
    embeddings = prototypes[labels].permute(0, 3, 1, 2).contiguous().requires_grad_()
    fixed = {"max_samples": 40, "max_views": 10}
    temperatures = {"temperature": 0.1, "base_temperature": 0.07}
    loop = per_group_contrast(embeddings, labels, predictions, **fixed, **temperatures, generator=generator)
    anchors = sample_anchors(labels, predictions, **fixed, ignore_index=255, generator=generator)
    rows = embeddings.flatten(2)[anchors.image, :, anchors.pixel]
    torch.testing.assert_close(loop, info_nce(rows, anchors.label, **temperatures))
    (gradient,) = torch.autograd.grad(loop, embeddings)
    assert int(gradient.abs().sum(1).gt(0).sum()) == len(anchors)


def test_the_cases_are_what_they_say() -> None:
    case = PixelCase(QUICK, CPU)
    term = case.term(memory=True)
    assert bool(term.bank.rings.valid().all())
    assert len(term.bank.keys()[0]) == sum(QUICK.bank) * QUICK.classes
    case.step(case.term(memory=False))()
    touched = int(case.embeddings.grad.abs().sum(1).gt(0).sum())
    assert touched == QUICK.anchors
    case.floor()()
    assert int(case.embeddings.grad.abs().sum(1).gt(0).sum()) == QUICK.anchors


def test_tiled_products_are_the_two_products() -> None:
    rows, keys = torch.randn(5, 4, dtype=torch.float64), torch.randn(3000, 4, dtype=torch.float64)
    torch.testing.assert_close(tiled_products(rows, keys), rows @ keys.T @ keys)


def test_tasks_take_turns_and_the_first_round_is_dropped() -> None:
    order: list[str] = []
    seconds = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


def test_the_clock_counts_work_and_not_waiting() -> None:
    def work() -> None:
        started = time.process_time()
        while time.process_time() - started < 0.02:
            pass

    assert interleave({"work": work}, 1, CPU)["work"] == pytest.approx(0.02, rel=0.5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_extra_memory_is_seen() -> None:
    held: list[torch.Tensor] = []
    extra = peak_extra_bytes(lambda: held.append(torch.ones(2**24)), held.clear, CPU)
    assert extra == pytest.approx(4 * 2**24, rel=0.2)


def test_a_missed_target_is_seen() -> None:
    assert Target("ratio", 1.4, 1.5).met
    assert not Target("ratio", 1.6, 1.5).met
    assert Target("speed-up", 30, 25, at_least=True).met
    assert not Target("speed-up", 20, 25, at_least=True).met
    assert Target("reported only", 20, None).met


def test_what_a_term_adds_is_held_to_a_share_of_the_step() -> None:
    seconds = {"training step": 1.0, "cross entropy": 0.1, "EMA": 0.021, "distillation": 0.7}
    seconds |= {f"cross entropy and {term}": 0.125 for term in losses.SHARES}
    seconds |= {"cross entropy and dice": 0.135, "cross entropy and boundary_cross_entropy": 0.9}
    missed = [target.what for target in losses.step_targets(seconds) if not target.met]
    assert missed == ["EMA / training step", "dice added / training step"]


def test_the_step_trains_and_the_terms_reach_the_logits() -> None:
    case = TrainingStepCase(QUICK, CPU)
    before = [parameter.detach().clone() for parameter in case.trainee.parameters()]
    case.step()()
    assert all(parameter.grad is not None for parameter in case.trainee.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, case.trainee.parameters(), strict=True))
    case.supervised(tuple(losses.SHARES))()
    case.average_update()()
    case.distillation()()


def test_curves_are_plotted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "curve.png"
    plot_curves([Curve("loss", "pixels", (10, 100), (0.1, 1.0), 1.0)], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_runs_at_a_tiny_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert losses.main(["--quick", "--json", "--rounds", "1"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"machine", "sizes", "seconds", "extra_bytes", "targets", "curves", "met"}
    assert {"pixel_contrast", "floor", "per-group loop", "contextrast", "network step", "EMA", "distillation"} <= set(
        report["seconds"]
    )
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert len(report["targets"]) >= 11
    assert losses.main(["--quick", "--rounds", "1"]) == 0
    assert "peak extra memory" in capsys.readouterr().out
