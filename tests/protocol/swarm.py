"""A swarm of simulated fleets: each seed draws which faults there are and how often; an oracle judges every event.

    python tests/protocol/swarm.py --rounds 100000           until so many rounds have ended, on every core
    python tests/protocol/swarm.py --seed 17                 one seed again, with everything it says
    python tests/protocol/swarm.py --bug NAME                with a planted bug, until a seed finds it
    python tests/protocol/swarm.py --every-bug               whether each planted bug is found within 10,000 rounds
    python tests/protocol/swarm.py --only statistics         only seeds with statistics rounds; or with `rollbacks`
    python tests/protocol/swarm.py --liveness 10000          how so many rounds end when many machines fail

Faults come first; then they stop, and the fleet must bring round after round to its end, with one member still away.
"""

import argparse
import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import chain, count

from planted_bugs import BUGS, plant

# One seed is one core's work; a second thread of the linear algebra would take it from another seed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROUNDS_A_SEED = 80
TWICE = 1000
"""Every so manyth seed runs twice and must leave the same trace."""
FOUND_WITHIN = 10_000
"""Rounds in which a soak finds each planted bug."""
REPORT_EVERY = 60.0
"""Seconds between two lines of a soak."""

REGRESSIONS = {
    "rounds-stop-after-a-clock-set-back-in-a-pause": 42,
    "ready-too-late-and-with-the-secret-of-a-past-round": 208181,
    "a-statistics-plan-before-the-rollback-that-explains-it": 3829,
}
"""Seeds that find a fault the project once had, by its name; they run before all others.

They do so while the draws stay as they are; what they found has a test of its own as well.
"""


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
    from shared_work import shared_work
    from swarm_fleet import Swarm

    with shared_work():
        return Swarm(seed).run()


def describes(seed: int) -> bool:
    """Whether this seed's fleet has statistics rounds between those of training: every tenth seed."""
    return seed % 10 == 9


def goes_back(seed: int) -> bool:
    """Whether its operator takes the model back now and then: every tenth seed, and half of those with statistics."""
    return seed % 10 == 8 or seed % 20 == 9


ONLY = {"statistics": describes, "rollbacks": goes_back}


def seeds_from(first: int, only: str) -> Iterator[int]:
    """All seeds from one on, or only those that have something."""
    return filter(ONLY[only], count(first)) if only else count(first)


def command(seed: int) -> str:
    """How to see a seed again."""
    return f"python tests/protocol/swarm.py --seed {seed}"


def attempt(seed: int) -> tuple[int, Outcome | None, str]:
    """(seed, outcome, what went wrong); every thousandth seed runs twice and must leave the same trace."""
    try:
        outcome = run(seed)
        if seed % TWICE == 0:
            assert run(seed).trace == outcome.trace, f"two runs of seed {seed} differ"
    except Exception as error:
        return seed, None, f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
    return seed, outcome, ""


def soak(rounds: int, first_seed: int, workers: int, only: str) -> int:
    """Run seeds until so many rounds have ended; the number of seeds that found something.

    Args:
        only: take only the seeds that have this.
    """
    began = reported = time.monotonic()
    found = run_seeds = 0
    ended: Counter[str] = Counter()
    seeds = chain(() if only else REGRESSIONS.values(), seeds_from(first_seed, only))

    def report() -> None:
        spent, total = time.monotonic() - began, sum(ended.values())
        print(
            f"{total} rounds of {run_seeds} seeds in {spent / 3600:.2f} hours, {total / spent:.1f} a second,"
            f" {found} seeds found something, {dict(ended)}",
            flush=True,
        )

    with ProcessPoolExecutor(workers, initializer=_rest_from_collecting) as pool:
        pending = {pool.submit(attempt, next(seeds)) for _ in range(2 * workers)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for seed, outcome, wrong in (future.result() for future in done):
                run_seeds += 1
                if outcome is None:
                    found += 1
                    print(f"seed {seed}: {wrong}\n  {command(seed)}", flush=True)
                else:
                    ended += outcome.rounds
                if sum(ended.values()) < rounds:
                    pending.add(pool.submit(attempt, next(seeds)))
            if time.monotonic() > reported + REPORT_EVERY:
                reported = time.monotonic()
                report()
    report()
    return found


def _rest_from_collecting() -> None:
    """Collections between the events of a seed cost a tenth of the time; a seed leaves little behind."""
    gc.disable()
    gc.freeze()


def hunt(bug: str, first_seed: int, rounds: int, only: str) -> bool:
    """Whether a seed finds a planted bug before so many rounds have ended without one."""
    ended = 0
    for seed in seeds_from(first_seed, only):
        try:
            ended += sum(run(seed).rounds.values())
        except AssertionError as error:
            print(f"{bug}: found by seed {seed} after {ended} rounds: {str(error)[:300]}")
            return True
        if ended >= rounds:
            break
    print(f"{bug}: not found within {ended} rounds from seed {first_seed}")
    return False


def hunt_all(first_seed: int, rounds: int) -> bool:
    """Whether each planted bug is found, each in a process of its own."""
    missed = 0
    for bug in BUGS:
        arguments = ["--bug", bug, "--first-seed", str(first_seed), "--rounds", str(rounds)]
        arguments += ["--only", BUGS[bug].only] if BUGS[bug].only else []
        missed += subprocess.run([sys.executable, __file__, *arguments]).returncode
    print(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs are found within {rounds} rounds")
    return not missed


def measure_liveness(rounds: int, first_seed: int) -> bool:
    """Whether 99.9 % of so many rounds end with a sum, and none hangs."""
    from liveness import HUNG, measure

    ended = measure(rounds, first_seed)
    part = ended["applied"] / sum(ended.values())
    print(f"{sum(ended.values())} rounds with failing machines: {part:.3%} applied, {ended[HUNG]} hung, {dict(ended)}")
    return part >= 0.999 and not ended[HUNG]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--bug", choices=sorted(BUGS))
    parser.add_argument("--every-bug", action="store_true")
    parser.add_argument("--liveness", type=int)
    parser.add_argument("--only", choices=sorted(ONLY), default="")
    arguments = parser.parse_args()
    if arguments.every_bug:
        return 0 if hunt_all(arguments.first_seed, FOUND_WITHIN) else 1
    if arguments.bug:
        plant(BUGS[arguments.bug])
        return 0 if hunt(arguments.bug, arguments.first_seed, arguments.rounds, arguments.only) else 1
    if arguments.liveness:
        return 0 if measure_liveness(arguments.liveness, arguments.first_seed) else 1
    if arguments.seed is not None:
        print(run(arguments.seed))
        return 0
    return 1 if soak(arguments.rounds, arguments.first_seed, arguments.workers, arguments.only) else 0


if __name__ == "__main__":
    sys.exit(main())
