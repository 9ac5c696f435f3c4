"""The benchmark of cold starts measures the command and its floor in fresh processes."""

import sys

import numpy as np
import pytest

from benchmarks.serving_cold import find_engine, measure, run_once
from serving.contract.errors import UserError


def test_it_measures_both_and_compares_with_the_limits(engine):
    report = measure(engine, height=32, width=64, runs=1)
    for name in ("infer", "floor"):
        assert report[name]["cpu_seconds"] > 0 and 0 < report[name]["seconds"] < 60
        assert 20 < report[name]["resident_mb"] < 1000
        assert len(report[name]["all_seconds"]) == 1
    assert report["within_limits"] is (report["infer"]["seconds"] <= 0.5 and report["infer"]["resident_mb"] < 200)


def test_the_memory_of_the_process_that_measures_is_not_counted():
    ours = np.ones(400_000_000, np.uint8)
    peak = run_once([sys.executable, "-c", "pass"]).resident_mb
    assert ours.nbytes / 1e6 > 400 - 1 and 5 < peak < 60


def test_a_command_that_fails_is_no_measurement(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="ended with 3: gone wrong"):
        run_once(["sh", "-c", "echo gone wrong; exit 3"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro"):
        find_engine()
