"""The benchmark of serving: pairs that take turns, a median with its interval, and every number that was asked for."""

import json
import sys

import pytest

from benchmarks.serving import main, ratio_of
from serving.contract.errors import UserError


def test_the_interval_comes_from_the_order_of_the_pairs():
    bare = [10.0] * 9
    infer = [9.0, 9.1, 9.2, 9.3, 9.4, 9.5, 9.6, 9.7, 9.8]
    found = ratio_of(infer, bare)
    assert found.median == pytest.approx(0.94)
    assert (found.low, found.high) == (pytest.approx(0.91), pytest.approx(0.97))  # the second on either side
    assert found.confidence == pytest.approx(1 - 20 / 512)
    alone = ratio_of([9.0], [10.0])
    assert alone.low == alone.high == alone.median and alone.confidence == 0


@pytest.mark.slow
def test_everything_is_measured(engine, monkeypatch, capsys):
    arguments = ["--engine", str(engine), "--int8", str(engine), "--images", "8", "--pairs", "1", "--many", "12"]
    monkeypatch.setattr(sys, "argv", ["serving", *arguments, "--cold-runs", "1", "--json"])
    assert main() == 0
    found = json.loads(capsys.readouterr().out)
    for name in ("fp32", "int8", "overlay"):
        assert found[name]["median"] > 0 and len(found[name]["infer"]) == len(found[name]["bare"]) == 1
    assert found["memory"]["ratio"] > 0.5 and found["cold"]["seconds_ratio"] > 0
    assert isinstance(found["within_limits"], bool)
    assert found["memory"]["measured_with"]["many"] == 12 and found["int8"]["measured_with"]["pairs"] == 1


def test_a_part_is_measured_alone_and_slips_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.serving.program_start", lambda runs: {"over_ms": 1.0 * runs})
    monkeypatch.setattr(sys, "argv", ["serving", "--engine", "e", "--parts", "program", "--cold-runs", "2", "--json"])
    assert main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["program"] == {"over_ms": 2.0, "measured_with": {"runs": 2}} and "cold" not in found
    for options, message in (
        (["--parts", "memry"], "--parts: no part 'memry'; did you mean 'memory'"),
        (["--parts", "int8"], "--int8 ENGINE"),
        (["--pairs", "0", "--images", "-1"], "--images: expected at least 1, got -1\n--pairs: expected"),
    ):
        monkeypatch.setattr(sys, "argv", ["serving", *options])
        with pytest.raises(UserError, match=message):
            main()


def test_without_an_engine_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["serving"])
    with pytest.raises(UserError, match="dvc repro"):
        main()
