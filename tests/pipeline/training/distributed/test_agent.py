"""Whole trainings by two ranks, as users start them: the same from beginning to end whatever happens between."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.pipeline.training.distributed.conftest import BRANCH, TRAIN, Project, end, is_alive, ranks_of, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the ranks below /proc"),
]
WEIGHTS = f"artifacts/{BRANCH}/trained/last.safetensors"


@pytest.fixture(scope="module")
def expected(project: Project) -> dict[str, bytes]:
    """What two ranks come to that nobody interrupts."""
    project.set(processes=2)
    done = project.run(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trains on CPU in fp32, 1 threads of torch, 2 processes") == 1
    assert not project.states(), "a finished training leaves no state"
    results = project.results()
    assert {WEIGHTS, f"metrics/train/{BRANCH}.json"} < results.keys()
    return results


def test_torchrun_trains_the_same(project: Project, expected: dict[str, bytes]) -> None:
    project.set(processes=1)  # torchrun says how many
    done = project.run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert project.results() == expected


def test_sigterm_keeps_the_state_and_the_same_command_goes_on(project: Project, expected: dict[str, bytes]) -> None:
    project.set(processes=2)
    with project.started(*TRAIN) as agent:
        wait_until(lambda: bool(project.states()), agent)
        ranks = ranks_of(agent.pid)
        agent.send_signal(signal.SIGTERM)
        _, errors = agent.communicate(timeout=500)
    assert agent.returncode == 143, errors
    assert errors.count("stopped by SIGTERM") == 1
    assert "Traceback" not in errors
    assert len(ranks) == 2 and not any(map(is_alive, ranks))
    assert project.states()
    done = project.run(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("goes on after iteration") == 1
    assert project.results() == expected


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_restarts_all(project: Project, expected: dict[str, bytes], rank: int) -> None:
    project.set(processes=2)
    with project.started(*TRAIN) as agent:
        wait_until(lambda: len(project.states()) > 1, agent)
        ranks = ranks_of(agent.pid)
        end(ranks[rank : rank + 1])
        _, errors = agent.communicate(timeout=500)
    assert agent.returncode == 0, errors
    assert f"rank {rank} ended with SIGKILL: all start again from the last checkpoint" in errors
    assert "goes on after iteration" in errors and "Traceback" not in errors
    assert project.results() == expected


def test_no_rank_outlives_its_agent(project: Project, expected: dict[str, bytes]) -> None:
    project.set(processes=2)
    with project.started(*TRAIN) as agent:
        wait_until(lambda: bool(project.states()), agent)
        ranks = ranks_of(agent.pid)
        end([agent.pid])
        agent.communicate(timeout=500)
    assert len(ranks) == 2
    done = project.run(*TRAIN)  # takes the branch's lock, which a rank would hold
    assert not any(map(is_alive, ranks))
    assert done.returncode == 0, done.stderr
    assert project.results() == expected


def test_the_state_of_another_number_of_processes_is_not_gone_on_from(project: Project) -> None:
    project.set(processes=2)
    with project.started(*TRAIN) as agent:
        wait_until(lambda: bool(project.states()), agent)
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=500)
    project.set(processes=1)
    done = project.run(*TRAIN)
    assert done.returncode == 0, done.stderr
    assert "with other settings, data or code" in done.stderr and "goes on" not in done.stderr
    project.results()


def test_what_all_ranks_refuse_is_one_line(project: Project) -> None:
    project.set(processes=2)
    held = project.folder / "data/held"
    (project.folder / "data/prepared").rename(held)
    try:
        done = project.run(*TRAIN)
    finally:
        held.rename(project.folder / "data/prepared")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1 and len(done.stderr.splitlines()) == 1


def test_what_one_rank_refuses_ends_all(project: Project) -> None:
    """A training image that is gone: one rank needs it first, while the others wait for its part of the step."""
    project.set(processes=2)
    image = sorted((project.folder / "data/prepared").rglob("train/images/*.png"))[0]
    content = image.read_bytes()
    image.write_bytes(b"")
    try:
        done = project.run(*TRAIN)
    finally:
        image.write_bytes(content)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1 and image.name in done.stderr
    assert "Traceback" not in done.stderr and "start again" not in done.stderr
