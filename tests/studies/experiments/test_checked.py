"""A record that the runner did not write so is refused, whoever reads it, with all that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.contract.errors import UserError
from studies.experiments.checked import checked_record, has_other_settings, settled
from studies.experiments.pairs import record_path
from studies.experiments.protocol import experiment_names
from studies.figures import page, shown_experiments

ROOT = Path(__file__).parents[3]
RECORD = Path("docs", "results", "studies", "tiny.json")


def repeat_the_pair(record: dict[str, Any]) -> None:
    """As where two records are merged by hand."""
    for pairs in (*(one["pairs"] for one in record["comparisons"]), record["provenance"]["pairs"]):
        pairs.append(pairs[0])


def add_to_provenance(record: dict[str, Any]) -> None:
    record["provenance"]["pairs"].append(record["provenance"]["pairs"][0] | {"seed": 101})


def add_a_pair_beyond_the_plan(record: dict[str, Any]) -> None:
    for pairs in (*(one["pairs"] for one in record["comparisons"]), record["provenance"]["pairs"]):
        pairs[0]["seed"] = 102


def edit_a_value(record: dict[str, Any]) -> None:
    record["comparisons"][0]["pairs"][0]["method"] += 1


def edit_the_difference(record: dict[str, Any]) -> None:
    record["comparisons"][1]["difference"] -= 0.5


def put_in_what_is_no_number(record: dict[str, Any]) -> None:
    record["comparisons"][0]["pairs"][0]["method"] = float("nan")


def rename(record: dict[str, Any]) -> None:
    record["comparisons"][0]["name"] = "another"


def forget_the_device(record: dict[str, Any]) -> None:
    del record["provenance"]["pairs"][0]["device"]


DAMAGES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (repeat_the_pair, r"provenance.pairs: seeds there more than once: \[100\]"),
    (add_to_provenance, r"'test mIoU': expected the seeds of provenance, \[100, 101\], got \[100\]"),
    (add_a_pair_beyond_the_plan, r"provenance.pairs: seeds \[102\] are no pairs of the protocol"),
    (edit_a_value, r"'test mIoU': expected .*, which follows from its pairs, got "),
    (edit_the_difference, r"'training': expected .*, which follows from its pairs, got "),
    (put_in_what_is_no_number, r"comparisons\[0\]\.pairs\[0\]\.method: expected a finite number, got float nan"),
    (rename, r"comparisons: expected .*'test mIoU'.* as in the protocol, got .*'another'"),
    (forget_the_device, r"provenance.pairs\[0\].device: missing"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_record_that_contradicts_itself_is_neither_shown_nor_gone_on_with(call, place_of_one_pair, damage, said):
    found = json.loads(RECORD.read_text())
    shown_experiments()
    damage(found)
    RECORD.write_text(json.dumps(found))
    for reader in (lambda: checked_record("tiny", settled("tiny")), shown_experiments, lambda: call("tiny", "--plan")):
        with pytest.raises(UserError, match=said) as error:
            reader()
        assert "take the committed file again" in str(error.value)


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"comparisons": 3}'])
def test_what_is_no_record_is_refused_in_words(call, place_of_one_pair, text):
    RECORD.write_text(text)
    for reader in (shown_experiments, lambda: call("tiny", "--plan")):
        with pytest.raises(UserError, match=r"tiny\.json: is not as studies\.run writes it"):
            reader()


def test_a_claim_that_was_changed_afterwards_is_not_judged_on_the_pairs_of_another(place_of_one_pair):
    path = place_of_one_pair / "studies" / "tiny.yaml"
    path.write_text(path.read_text().replace("above: 0", "below: 0"))
    (one,) = shown_experiments()
    assert one.other_settings and one.state == "1 pairs, made with other settings than those here"
    (line,) = (line for line in page([one]).splitlines() if "**test mIoU**" in line)
    assert line.endswith("| undecided: made with other settings than those here |")


def test_over_a_params_yaml_that_the_arms_do_not_fit_nothing_is_decided(place_of_one_pair):
    path = place_of_one_pair / "params.yaml"
    path.write_text(path.read_text().replace("pretrained: false", "pretrained: false, head: hrnet"))
    (one,) = shown_experiments()
    assert one.other_settings


def test_every_record_of_the_repository_is_sound_and_of_the_protocol_that_is_there(monkeypatch: pytest.MonkeyPatch):
    """Those of confirmations too, whose comparisons follow from what was chosen."""
    monkeypatch.chdir(ROOT)
    recorded = [name for name in experiment_names() if record_path(name).exists()]
    assert {"e3", "e4", "e5", "e7", "e7-confirmation", "e8", "e8-92", "e8-confirmation"} <= set(recorded)
    for name in recorded:
        record = checked_record(name, settled(name))
        assert record is not None and not has_other_settings(name, settled(name), record), name
