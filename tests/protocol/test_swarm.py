"""The simulator on every commit: two thousand rounds with every fault, and each planted bug found by its seed."""

import subprocess
import sys

import pytest
import swarm
from planted_bugs import BUGS

ROUNDS = 500
APART = 10_000
"""Between the first seeds of two runs, so that no seed is run twice."""


def simulate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, swarm.__file__, *arguments], capture_output=True, text=True)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(4))
def test_nothing_that_must_not_happen_happens(part: int) -> None:
    done = simulate("--rounds", str(ROUNDS), "--first-seed", str(part * APART))
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.timeout(400)  # a bug that stalls a fleet is found only when its virtual hours are over
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    done = simulate("--bug", name, "--first-seed", str(BUGS[name].seed), "--rounds", "200")
    assert done.returncode == 0, f"not found within 200 rounds from seed {BUGS[name].seed}: {done.stdout}{done.stderr}"


def test_the_same_seed_leaves_the_same_trace() -> None:
    assert swarm.run(3) == swarm.run(3)
