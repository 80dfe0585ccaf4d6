"""The simulator on every commit: seeds that once found a fault, two thousand rounds with every fault, planted bugs."""

import subprocess
import sys

import liveness
import pytest
import swarm
from planted_bugs import BUGS

ROUNDS = 500
APART = 10_000
"""Between the first seeds of two runs, so that no seed is run twice."""


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, swarm.__file__, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", swarm.REGRESSIONS)
def test_a_seed_that_found_a_fault_finds_none(name: str) -> None:
    swarm.run(swarm.REGRESSIONS[name])


@pytest.mark.parametrize("part", range(4))
def test_nothing_that_must_not_happen_happens(part: int) -> None:
    done = simulate("--rounds", str(ROUNDS), "--first-seed", str((part + 1) * APART))
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    done = simulate("--bug", name, "--first-seed", str(BUGS[name].seed), "--rounds", "200")
    assert done.returncode == 0, f"not found within 200 rounds from seed {BUGS[name].seed}: {done.stdout}{done.stderr}"


def test_the_same_seed_leaves_the_same_trace() -> None:
    assert swarm.run(3) == swarm.run(3)


def test_rounds_end_although_machines_fail() -> None:
    """Of these hundred rounds all but one at most; `--liveness` measures the thousandth part."""
    ended = liveness.measure(100, first_seed=0)
    assert ended["applied"] >= 99
    assert not ended[liveness.HUNG]
