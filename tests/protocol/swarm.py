"""A swarm of simulated fleets: each seed draws which faults there are and how often; an oracle judges what came of it.

    python tests/protocol/swarm.py --rounds 100000           until so many rounds have ended, on every core
    python tests/protocol/swarm.py --seed 17                 one seed again, with everything it says
    python tests/protocol/swarm.py --bug NAME                with a planted bug, until a seed finds it

Faults come first; then they stop, and the fleet must bring a round to its end, with one member still away.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from planted_bugs import BUGS, plant

ROUNDS_A_SEED = 10


@dataclass(frozen=True)
class Outcome:
    """What came of one seed.

    Attributes:
        rounds: how many ended, by outcome.
        trace: hash of everything that was sent; the same seed leaves the same.
    """

    rounds: Counter[str]
    trace: str


def run(seed: int) -> Outcome:
    """Run one seed; AssertionError, naming it, if anything happened that must not."""
    from swarm_fleet import Swarm

    return Swarm(seed).run()


def command(seed: int, bug: str | None = None) -> str:
    """How to see a seed again."""
    return f"python tests/protocol/swarm.py --seed {seed}" + (f" --bug {bug}" if bug else "")


def attempt(seed: int) -> tuple[int, Outcome | None, str]:
    """(seed, outcome, what went wrong); every thousandth seed runs twice and must leave the same trace."""
    try:
        outcome = run(seed)
        if seed % 1000 == 0:
            assert run(seed).trace == outcome.trace, f"two runs of seed {seed} differ"
    except Exception as error:
        return seed, None, f"{type(error).__name__}: {error}"
    return seed, outcome, ""


def soak(rounds: int, first_seed: int, workers: int) -> int:
    """Run seeds until so many rounds have ended; the number of seeds that found something."""
    began, found = time.monotonic(), 0
    ended: Counter[str] = Counter()
    seeds = iter(range(first_seed, sys.maxsize))
    with ProcessPoolExecutor(workers) as pool:
        while sum(ended.values()) < rounds:
            for seed, outcome, wrong in pool.map(attempt, take(seeds, 8 * workers)):
                if outcome is None:
                    found += 1
                    print(f"seed {seed}: {wrong}\n  {command(seed)}", flush=True)
                else:
                    ended += outcome.rounds
            spent = time.monotonic() - began
            total = sum(ended.values())
            print(
                f"{total} rounds, {total / spent:.1f} a second, {found} seeds found something, {dict(ended)}",
                flush=True,
            )
    return found


def take(seeds: Iterator[int], number: int) -> list[int]:
    """The next so many seeds."""
    return [next(seeds) for _ in range(number)]


def hunt(bug: str, first_seed: int, rounds: int) -> bool:
    """Whether a seed finds a planted bug before so many rounds have ended without one."""
    ended = 0
    for seed in range(first_seed, sys.maxsize):
        try:
            ended += sum(run(seed).rounds.values())
        except AssertionError as error:
            print(f"{bug}: found by seed {seed} after {ended} rounds: {str(error)[:300]}")
            return True
        if ended >= rounds:
            break
    return False


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--bug", choices=sorted(BUGS))
    arguments = parser.parse_args()
    if arguments.bug:
        plant(BUGS[arguments.bug])
        return 0 if hunt(arguments.bug, arguments.first_seed, arguments.rounds) else 1
    if arguments.seed is not None:
        print(run(arguments.seed))
        return 0
    return 1 if soak(arguments.rounds, arguments.first_seed, arguments.workers) else 0


if __name__ == "__main__":
    sys.exit(main())
