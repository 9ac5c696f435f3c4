"""The page and the figure of all experiments: what the records say, and nothing that they do not."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from export.pages.formatting import DASH
from studies import figures
from studies.experiments.pairs import summary
from studies.experiments.protocol import load_experiment, path_of, trainable_arms
from studies.experiments.runs import settings_sha256
from studies.figures import adjusted_p_values, figure, page, shown_experiments

ROOT = Path(__file__).parents[2]


def write_record(name: str, values: dict[str, list[float]], primary: str) -> None:
    """A record of pairs whose baselines are 50 and whose differences are `values`."""
    comparisons = []
    for comparison, differences in values.items():
        pairs = [
            {"seed": 100 + index, "baseline": 50.0, "method": 50.0 + difference}
            for index, difference in enumerate(differences)
        ]
        unit = "nats" if comparison == "training" else "points"
        entry = {"name": comparison, "primary": comparison == primary, "unit": unit, "pairs": pairs}
        comparisons.append(entry | summary(pairs, unit))
    made = {"commits": [None], "device": "CPU", "cpu_minutes": {}}
    seeds = [{"seed": 100 + index} | made for index in range(len(differences))]
    experiment = load_experiment(name)
    settings = settings_sha256(experiment, trainable_arms(experiment, path_of(name)))
    path = Path("docs", "results", "studies", f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    provenance = {"settings_sha256": settings, "data_sha256": "", "pairs": seeds}
    record = {
        "experiment": name,
        "hypothesis": "",
        "commit": None,
        "comparisons": comparisons,
        "provenance": provenance,
    }
    path.write_text(json.dumps(record | {"provenance": provenance}))


def copy(place: Path, name: str, **replacements: str) -> None:
    text = (place / "studies" / "tiny.yaml").read_text()
    for old, new in replacements.items():
        text = text.replace(old, new)
    (place / "studies" / f"{name}.yaml").write_text(text)


def test_what_has_not_run_is_shown_as_not_run(place: Path):
    (one,) = shown_experiments()
    assert one.state == "not run" and one.wanted == 2
    assert "| [E0](../../studies/tiny.yaml) | | 0 of 2 | | | | | not run |" in page([one])
    assert "E0: not run" in figure([one]).decode()


def test_a_finished_experiment_is_decided_by_its_primary_comparison(place: Path):
    write_record("tiny", {"test mIoU": [1.0, 1.1], "training": [-0.2, 0.4]}, "test mIoU")
    said = page(shown_experiments())
    assert "| **test mIoU** | 2 of 2 | +1.05 points | +0.41 to +1.69 | 0.82 | 0.03 | **counts** |" in said
    assert "| training | 2 of 2 | +0.1000 nats | -3.7119 to +3.9119 | 4.9002 |  |  |" in said
    assert "- **E0** (2 pairs): The contrast changes something. It would count if the interval lay above 0." in said


def test_holm_is_over_all_finished_experiments(place: Path):
    copy(place, "e10", E0="E10")
    copy(place, "e9", E0="E9")
    write_record("tiny", {"test mIoU": [1.0, 1.1], "training": [0.0, 0.0]}, "test mIoU")
    write_record("e10", {"test mIoU": [1.0, 1.1], "training": [0.0, 0.0]}, "test mIoU")
    experiments = shown_experiments()
    assert [one.name for one in experiments] == ["e9", "e10", "tiny"], "by number"
    assert set(adjusted_p_values(experiments)) == {("e10", "test mIoU"), ("tiny", "test mIoU")}
    assert all(value == pytest.approx(2 * 0.0303, abs=1e-4) for value in adjusted_p_values(experiments).values())
    assert page(experiments).count("does not count") == 2, "each alone would"


def test_nothing_is_decided_before_all_pairs_are_there(place: Path):
    write_record("tiny", {"test mIoU": [1.0], "training": [0.5]}, "test mIoU")
    (one,) = shown_experiments()
    assert one.state == "1 of 2 pairs, unfinished" and adjusted_p_values([one]) == {}
    assert f"| 1 of 2 | +1.00 points | {DASH} | {DASH} |  | undecided: pairs are missing |" in page([one])
    ElementTree.fromstring(figure([one]))


def test_the_figure_has_a_dot_for_every_pair_and_the_same_bytes_every_time(place: Path):
    write_record("tiny", {"test mIoU": [1.0, 1.1], "training": [-0.2, 0.4]}, "test mIoU")
    drawn = figure(shown_experiments())
    assert drawn == figure(shown_experiments())
    text = drawn.decode()
    assert "test mIoU" in text and "method - baseline, points" in text, "text stays text"
    (group,) = (part for part in ElementTree.fromstring(text).iter() if part.get("id") == "pairs of test mIoU")
    dots = [part for part in group.iter() if part.tag.endswith("}use")]
    assert len(dots) == 2
    left, right = sorted(float(str(dot.get("x"))) for dot in dots)
    assert right - left > 1, "1.0 and 1.1 are two dots"


def test_the_command_writes_both(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    write_record("tiny", {"test mIoU": [1.0, 1.1], "training": [-0.2, 0.4]}, "test mIoU")
    monkeypatch.setattr(sys, "argv", ["x"])
    assert figures.main() == 0
    assert capsys.readouterr().out == "tiny: 2 pairs\n"
    assert "studies.svg" in Path("docs/results/studies.md").read_text()
    ElementTree.parse("docs/results/studies.svg")


def test_the_committed_page_is_that_of_the_committed_experiments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    experiments = shown_experiments()
    assert figures.PAGE.read_text(encoding="utf-8") == page(experiments), "run `python -m studies.figures`"
    drawn = figures.FIGURE.read_text(encoding="utf-8")
    assert all(f"{one.experiment.experiment}: {one.state}" in drawn for one in experiments)
