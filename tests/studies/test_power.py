"""What a number of pairs can see, against simulation; claims and Holm against what can be told by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy import stats

from serving.contract.errors import UserError
from studies import power
from studies.power import holm, p_value, pairs_needed, smallest_effect


@pytest.mark.parametrize(("pairs", "effect"), [(3, 3.26), (8, 1.16), (12, 0.89), (16, 0.75), (24, 0.60)])
def test_what_pairs_can_see_is_what_tables_of_power_say(pairs, effect):
    assert smallest_effect(pairs, 1.0) == pytest.approx(effect, abs=0.005)
    assert smallest_effect(pairs, 0.64) == pytest.approx(0.64 * effect, abs=0.005)


def test_an_effect_of_that_size_is_found_four_times_of_five():
    generator = np.random.default_rng(0)
    draws = generator.normal(smallest_effect(12, 1.0), 1.0, size=(20_000, 12))
    found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_many_pairs_see_little():
    for pairs in (1000, 100_000):
        assert smallest_effect(pairs, 1.0) == pytest.approx((1.95996 + 0.84162) / pairs**0.5, rel=2e-3)


def test_pairs_are_added_by_the_deviation_alone():
    assert pairs_needed(0.60, see=0.6, planned=12, at_most=20) == 12
    assert pairs_needed(0.75, see=0.6, planned=12, at_most=20) == 15
    assert smallest_effect(15, 0.75) <= 0.6 < smallest_effect(14, 0.75)
    assert pairs_needed(3.0, see=0.6, planned=12, at_most=20) == 20
    assert pairs_needed(0.0, see=0.6, planned=12, at_most=20) == 12


def test_a_claim_has_p_below_five_percent_where_the_interval_lies_on_its_side():
    values = [0.4, 0.9, 0.1, 0.7, 0.5]
    mean, error = np.mean(values), np.std(values, ddof=1) / 5**0.5
    low, high = mean + np.array([-1, 1]) * stats.t.ppf(0.975, 4) * error
    assert p_value(values, above=low) == pytest.approx(0.05) and p_value(values, below=high) == pytest.approx(0.05)
    assert p_value(values, above=0.0) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    assert p_value(values, below=0.0) == 1.0
    assert p_value([1.0, 1.0], above=0.0) == 0.0 and p_value([1.0, 1.0], below=1.0) == 1.0


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5})
    assert found == {"a": 0.04, "c": pytest.approx(0.09), "b": pytest.approx(0.09), "d": 0.5}
    assert holm({}) == {}


def test_the_command_says_what_each_number_of_pairs_sees(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--sd", "0.64", "--pairs", "3", "12"])
    assert power.main() == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("3 pairs, standard deviation 0.64: an effect of 2.09 is seen with a probability of 80%")
    assert "an effect of 0.57 is seen" in second and second.endswith("reaches 0.41 to either side")


@pytest.mark.parametrize(
    ("sd", "pairs", "said"), [("0.6", "1", "at least 2, got 1"), ("-1", "3", "at least 0, got -1")]
)
def test_what_has_no_answer_is_refused(monkeypatch, sd, pairs, said):
    monkeypatch.setattr(sys, "argv", ["x", f"--sd={sd}", "--pairs", pairs])
    with pytest.raises(UserError, match=said):
        power.main()
