"""How many rounds end with a sum when machines fail as machines do: no lies, no lost messages, only who is gone.

In every round each participant is lost with 30 % before it uploads, each member with 5 % until the round is over, and
the coordinator ends and starts again once, at any moment. Nine members, of which three may be missing.
"""

import random
from collections import Counter
from functools import cache, partial
from itertools import count

from shared_work import shared_work
from signed_fleet import FleetKeys, make_fleet
from witness import GRACE
from world import RoundSettings, World

from hushfleet.actions import Note

LOST, FAILED = 0.3, 0.05
"""Of the participants and of the members, in each round."""
PARTICIPANTS, MEMBERS, RECOVERIES = 10, 9, 3
ROUNDS = RoundSettings(collect=30, answer=10, recover=30, enough=0.5, patience=5.0, pause=5.0)
ROUND_SECONDS = ROUNDS.collect + ROUNDS.answer + ROUNDS.recover
HUNG = "hung"


@cache
def fleet() -> FleetKeys:
    """Committees for 32 rounds, as by default."""
    return make_fleet(
        PARTICIPANTS, MEMBERS, committee_min=7, recoveries=RECOVERIES, epoch_rounds=32, uploads_per_base=1000
    )


class Failing:
    """One fleet under way."""

    def __init__(self, seed: int) -> None:
        self.world = World(fleet(), seed=("liveness", seed), rounds=ROUNDS)
        self.chance = random.Random(f"liveness {seed}")
        self.world.committed = lambda index, actions: self._committed(list(actions)) if index == 0 else None
        self.world.training_time = lambda index, plan: self.chance.uniform(2.0, 5.0)
        self._announced: dict[int, float] = {}
        self._gone: set[int] = set()

    def run(self, rounds: int) -> Counter[str]:
        """How so many rounds ended; those that did not end in time are hung."""
        world = self.world
        end = world.now + rounds * (ROUND_SECONDS + ROUNDS.pause) + 8 * 3600
        while len(world.outcomes()) < rounds and world.now < end:
            world.run_for(ROUND_SECONDS)
        ended = Counter(str(outcome["outcome"]) for outcome in world.outcomes()[:rounds])
        known = {int(str(outcome["round"])) for outcome in world.outcomes()}
        late = [number for number, time in self._announced.items() if time + ROUND_SECONDS + GRACE < world.now]
        ended[HUNG] = sum(number not in known for number in late)
        return ended

    def _committed(self, actions: list[object]) -> None:
        for action in actions:
            if isinstance(action, Note) and action.event == "plan":
                self._fail(int(str(action.fields["round"])))
            elif isinstance(action, Note) and action.event == "round":
                # The next round may come at once, and draws anew who is gone.
                for index in self._gone:
                    self.world.at(self.world.now, partial(self.world.start, index))
                self._gone.clear()

    def _fail(self, number: int) -> None:
        """Who is gone in this round."""
        world, chance = self.world, self.chance
        self._announced[number] = world.now
        for index in world.keys.participants():
            if chance.random() < LOST:
                self._take(index, chance.uniform(0, 2.0))
        for index in world.keys.members():
            if chance.random() < FAILED:
                self._take(index, 0.0)
        restart = world.now + chance.uniform(0, 15.0)
        world.at(restart, lambda: world.crash(0, keep_session=True))
        world.at(restart + chance.uniform(1, 5), lambda: world.start(0))

    def _take(self, index: int, after: float) -> None:
        self._gone.add(index)
        self.world.at(self.world.now + after, lambda: self.world.crash(index, keep_session=True))


def measure(rounds: int, first_seed: int, rounds_a_seed: int = 100) -> Counter[str]:
    """How rounds of as many fleets as it takes ended."""
    ended: Counter[str] = Counter()
    for seed in count(first_seed):
        with shared_work():
            ended += Failing(seed).run(min(rounds_a_seed, rounds - sum(ended.values())))
        if sum(ended.values()) >= rounds:
            break
    return ended
