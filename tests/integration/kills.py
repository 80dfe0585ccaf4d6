"""Random SIGKILLs of agents, members, coordinator and broker, also all at once, over a real Mosquitto with TLS.

    make soak KILLS=10000 [SEED=S]

The seed decides who is killed, after how many more lines of the fleet's journals, and who stays away until the next
blow; what else the machine does meanwhile, nobody decides. Every killed process counts. An oracle (contributions.py)
judges every round: no accepted upload lost, none counted twice, nothing said twice; the fleet must go on ending rounds.
"""

import argparse
import random
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from contributions import ContributingFleet, Oracle
from fleet_fixture import COORDINATOR

BROKER = "broker"
POLICY = {"epoch_rounds": 16, "audit_rate": 0.02, "clip": ContributingFleet.clip}
ROUNDS = {"collect": 10, "answer": 1, "recover": 10, "enough": 0.6, "patience": 0.3, "steps": 1}
LONGEST_SILENCE = 5.0
"""Seconds; a blow does not wait longer for lines that do not come."""
LONGEST_WITHOUT_RESULT = 600.0
"""Seconds without the end of a round after which the fleet counts as hanging: failed set-ups pause for minutes."""
ACCEPTING = 5.0
"""Seconds within which a coordinator that is started again is to take messages."""
PROGRESS_EVERY = 30.0
"""Seconds."""
UNSETTLED = 3
"""The newest rounds, of which not everything need have passed yet."""


@dataclass(frozen=True)
class Blow:
    """One moment at which processes die.

    Attributes:
        lines: of the journals, told since the blow before.
        delay: seconds after the last of them.
        victims: who dies; the broker among them or not.
        away: who of them is started at the next blow only.
    """

    lines: int
    delay: float
    victims: tuple[str, ...]
    away: tuple[str, ...]


def blows(seed: int, services: Sequence[str]) -> Iterator[Blow]:
    """The schedule of a seed: the same names and numbers each time."""
    choice = random.Random(seed)
    everyone = [BROKER, *services]
    while True:
        victims = choice.choices(
            [
                [choice.choice(services)],
                choice.sample(services, choice.randint(2, 3)),
                [COORDINATOR],
                [BROKER],
                [BROKER, COORDINATOR],
                everyone,
            ],
            [40, 25, 15, 8, 4, 8],
        )[0]
        # The broker always comes back: without it nothing at all happens.
        away = [name for name in victims if name != BROKER and choice.random() < 0.15]
        yield Blow(choice.randrange(40), choice.random() * 0.05, tuple(victims), tuple(away))


class Kills:
    """One fleet under blows."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.fleet = ContributingFleet(directory, policy=POLICY, rounds=ROUNDS)
        self.oracle = Oracle(self.fleet)
        self.restarts: dict[str, list[float]] = {"alone": [], "among others": []}
        self.killed = 0
        self._blows = blows(seed, self.fleet.everyone)
        self._started, self._company = 0.0, ""
        self._newest, self._newest_at = 0, time.monotonic()

    @property
    def faults(self) -> list[str]:
        """What must not have happened."""
        return self.oracle.faults

    def start(self) -> None:
        """Everybody, for the first time; the first round ends."""
        self.fleet.start(*self.fleet.everyone)
        self.fleet.wait_for(COORDINATOR, "round", deadline=100)

    def strike(self) -> None:
        """The next blow."""
        blow = next(self._blows)
        self.fleet.listen(blow.lines, LONGEST_SILENCE)
        time.sleep(blow.delay)
        self._look_for_the_dead()
        victims = [name for name in blow.victims if name == BROKER or self.fleet.processes[name].running]
        # Nothing is told any more by a process that is dead: what it said is read to its end.
        if BROKER in victims:
            self.fleet.broker.kill()
        self.fleet.kill(*(name for name in victims if name != BROKER))
        self.killed += len(victims)
        self._listen()
        if {BROKER, COORDINATOR} & set(victims):
            self._give_up_measuring()
        if not self.fleet.broker.running():
            self.fleet.broker.start()
        processes = self.fleet.processes
        back = [name for name in self.fleet.everyone if name not in blow.away and not processes[name].running]
        if COORDINATOR in back:
            self._started, self._company = time.time(), "alone" if len(back) == 1 else "among others"
        self.fleet.start(*back)

    def _give_up_measuring(self) -> None:
        """A start that a blow ends counts only if it has taken too long already."""
        if self._started and (passed := time.time() - self._started) > ACCEPTING:
            self.restarts[self._company].append(passed)
        self._started = 0.0

    def _look_for_the_dead(self) -> None:
        for name, process in self.fleet.processes.items():
            if not process.running and (code := process.wait()) != -signal.SIGKILL:
                self.faults.append(f"{name} ended by itself with exit code {code}")

    def _listen(self) -> None:
        """Hear what was told, and judge the rounds that are settled."""
        told = self.fleet.take()
        self.oracle.hear(told)
        for teller, _, event in told:
            if (teller, event.get("event")) == (COORDINATOR, "connected") and 0 < self._started <= event["time"]:
                self.restarts[self._company].append(event["time"] - self._started)
                self._started = 0.0
        newest = self.oracle.newest
        self.oracle.judge(newest - UNSETTLED)
        if newest > self._newest:
            self._newest, self._newest_at = newest, time.monotonic()
        elif time.monotonic() - self._newest_at > LONGEST_WITHOUT_RESULT:
            self.faults.append(f"no round has ended for {LONGEST_WITHOUT_RESULT:.0f} s after round {newest}")
        if self.faults:
            self.faults.extend(line for _, line, _ in told[-100:])

    def finish(self) -> None:
        """No more blows: a round with everybody in it, and then everybody has the same model."""
        fleet = self.fleet
        fleet.bring_back(*fleet.everyone)
        self._listen()
        try:
            ended = fleet.wait_for(COORDINATOR, "round", deadline=100, outcome="applied", uploads=len(fleet.devices))
            self.oracle.await_result(ended["round"])
        except AssertionError as error:
            self.faults.append(f"no round with everybody at the end: {error}")
            return
        codes = fleet.stop(*fleet.everyone)
        if set(codes) != {0}:
            self.faults.append(f"exit codes at the end: {codes}")
        self._listen()
        self.oracle.judge(ended["round"])
        models = {name: fleet.model(name) for name in fleet.everyone}
        newest = models[COORDINATOR]
        behind = {name: model for name, model in models.items() if model[0] == newest[0] and model != newest}
        if behind:
            self.faults.append(f"other models than the coordinator's {newest}: {behind}")

    def progress(self) -> str:
        """What has come of it."""
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.oracle.outcomes.items()))
        text = f"{self.killed} kills, {self.oracle.judged} rounds judged ({counts})"
        for company, seconds in self.restarts.items():
            if seconds:
                late = sum(each > ACCEPTING for each in seconds)
                text += (
                    f"; coordinator started {company} {len(seconds)} times, accepting after {median(seconds):.2f} s"
                    f" (median), {max(seconds):.2f} s (longest), {late} later than {ACCEPTING:g} s"
                )
        return text


def run(kills: int, seed: int, directory: Path, progress: bool = False) -> Kills:
    """So many kills, or as many as it takes to find a fault."""
    told = time.monotonic()
    under = Kills(directory, seed)
    with ExitStack() as stack:
        stack.enter_context(under.fleet)
        under.fleet.broker.start()
        stack.enter_context(under.oracle)
        under.start()
        if progress:
            print("the fleet is running", flush=True)
        while under.killed < kills and not under.faults:
            under.strike()
            if progress and time.monotonic() - told > PROGRESS_EVERY:
                told = time.monotonic()
                print(under.progress(), flush=True)
        if not under.faults:
            under.finish()
    return under


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    again = f"make soak KILLS={arguments.kills} SEED={seed}"
    print(f"seed {seed}; the same schedule again: {again}", flush=True)
    # An end by SIGTERM clears up as one by Ctrl-C does, in the background too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    try:
        with TemporaryDirectory(prefix="hushfleet-kills-") as directory:
            under = run(arguments.kills, seed, Path(directory), progress=True)
    except KeyboardInterrupt:
        print("ended by request; nothing is left behind")
        return 130
    print(under.progress(), f"in {(time.monotonic() - began) / 60:.1f} minutes")
    print("\n".join(["found:", *under.faults] if under.faults else ["nothing found"]))
    return 1 if under.faults else 0


if __name__ == "__main__":
    sys.exit(main())
