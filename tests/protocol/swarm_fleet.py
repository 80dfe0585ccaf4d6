"""One simulated fleet of the swarm: drawn from its seed, driven through its faults, judged after every event."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache

from guard import Guard
from liars import COORDINATOR_LIES, MEMBER_LIES, NUMBERS_LIES, PARTICIPANT_LIES, SUMS_LIES, Liars, Lie
from opened_numbers import drawn
from signed_fleet import POLICY, FleetKeys, make_fleet
from swarm import ROUNDS_A_SEED, Outcome, command, describes, goes_back
from witness import GRACE
from world import Crash, Faults, RoundSettings, World

from edge_agent import restoration
from hushfleet.actions import RESTORED
from hushfleet.errors import RefusedError

ROUNDS = RoundSettings(collect=20, answer=6, recover=14, enough=0.6, patience=4.0, pause=5.0)
ROUND_SECONDS = ROUNDS.collect + ROUNDS.answer + ROUNDS.recover
YEAR = 365 * 86_400.0
HEALED_ROUNDS = 4
"""Rounds in a row that must be applied once everyone but one member is well again."""
FLEETS = 20
"""How many fleets there are of one shape; the owners' signatures are the same for every seed that draws it."""


@dataclass(frozen=True)
class Shape:
    """What the owners sign.

    Attributes:
        participants, members, both: devices by role; `both` of the members take part as well.
        recoveries, epoch_rounds, audit_rate: the policy's.
    """

    participants: int
    members: int
    both: int
    recoveries: int
    epoch_rounds: int
    audit_rate: float

    @classmethod
    def throw(cls, chance: random.Random) -> "Shape":
        """Small fleets mostly: what goes wrong between two goes wrong among many."""
        members = chance.choice((3, 3, 3, 3, 4, 4, 5, 6))
        both = chance.choice((1, 1, 2))
        return cls(
            participants=chance.choice((1, 2, 2, 3, 4)),
            members=members,
            both=both,
            recoveries=chance.choice((1, 2, 2)) if members > 4 else 1,
            epoch_rounds=chance.choice((2, 4, 8)),
            audit_rate=chance.choice((0.0, 0.25, 1.0)),
        )


@cache
def fleet_of(shape: Shape, seed: int, statistics: bool) -> FleetKeys:
    """Keys and documents; certificates are signed as they are asked for.

    Args:
        statistics: whether the owners allow them, and sign a schema.
    """
    keys = make_fleet(
        shape.participants,
        shape.members,
        both=shape.both,
        seed=seed,
        epoch_rounds=shape.epoch_rounds,
        recoveries=shape.recoveries,
        committee_min=max(3, shape.members - 1),
        # A liar's rounds may be aborted again and again; the limit on one base would then end training for a day.
        uploads_per_base=1000,
        audit_rate=shape.audit_rate,
        noiseless_statistics=int(statistics),
    )
    # Devices fetch what opened if the schema asks for thresholds, and has no classes.
    return keys.with_schema(task="anomaly", classes=()) if statistics else keys


@dataclass(frozen=True)
class Dice:
    """Which faults a seed drew, and how often they come.

    Attributes:
        network: loss, doubling, delay and with it reordering.
        crashes, naps, disk_errors, copies, clock_jumps: per machine and round; copies of vaults that are put back.
        wipes, partitions: brokers restarted empty, and sets of machines cut off, per round.
        slow: training takes up to longer than a plan is open.
        lies: who lies, and in which way.
    """

    network: Faults
    crashes: float
    naps: float
    disk_errors: float
    copies: float
    clock_jumps: float
    wipes: float
    partitions: float
    slow: bool
    lies: dict[int, Lie]

    @classmethod
    def throw(cls, chance: random.Random, keys: FleetKeys) -> "Dice":
        """First which faults there are, then how often."""

        def some(largest: float) -> float:
            return chance.uniform(0, largest) if chance.random() < 0.5 else 0.0

        return cls(
            network=Faults(some(0.05), some(0.3), some(0.3), chance.uniform(0.1, 8.0) * chance.choice((1, 1, 5))),
            crashes=some(0.3),
            naps=some(0.15),
            disk_errors=some(0.05),
            copies=some(0.03),
            clock_jumps=some(0.05),
            wipes=some(0.15),
            partitions=some(0.15),
            slow=chance.random() < 0.5,
            lies=_throw_lies(chance, keys) if chance.random() < 0.5 else {},
        )

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def _throw_lies(chance: random.Random, keys: FleetKeys) -> dict[int, Lie]:
    """The coordinator, or devices: as many as chance makes it, each with lies of its own."""
    statistics = "schema" in keys.documents
    if chance.random() < 0.3:
        told = (*COORDINATOR_LIES, *(SUMS_LIES if statistics else ()))
        return {0: Lie(tuple(chance.sample(told, k=2)), chance.uniform(0.05, 0.6))}
    lies: dict[int, Lie] = {}
    for index in chance.sample(sorted(keys.credentials)[1:], k=chance.choice((1, 1, 2, 3))):
        kinds = [
            *(MEMBER_LIES if index in keys.members() else ()),
            *(PARTICIPANT_LIES if index in keys.participants() else ()),
            *(NUMBERS_LIES if index in keys.participants() and statistics else ()),
        ]
        lies[index] = Lie(tuple(chance.sample(kinds, k=chance.choice((1, 1, 2)))), chance.uniform(0.05, 1.0))
    return lies


class Swarm:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(f"swarm {seed}")
        shape = Shape.throw(self.chance)
        rounds, statistics = ROUNDS, describes(seed)
        keys = fleet_of(shape, seed % FLEETS, statistics)
        self.dice = Dice.throw(self.chance, keys)
        if statistics:
            # Drawn apart, so that the other seeds draw what they always drew.
            every = random.Random(f"statistics {seed}").choice((1, 2))
            rounds = replace(ROUNDS, statistics_every=every)
        self.world = World(
            keys, seed=seed, rounds=rounds, faults=self.dice.network, chunk=self.chance.choice((512, 4096, 4096))
        )
        if statistics:
            self.world.numbers = drawn(keys, seed)
        self.liars = Liars(self.world, self.dice.lies)
        self.guard = Guard(self.world, self.liars, shape.recoveries)
        self.shape = shape
        self.world.started = self._started
        for index in keys.credentials:
            self.liars.make(index)
        self.end = self.world.now + 60 + ROUNDS_A_SEED * self.chance.uniform(4, ROUND_SECONDS)
        if self.dice.slow:
            self.world.training_time = lambda index, plan: self.chance.uniform(0.5, 1.3 * ROUNDS.collect)

    def run(self) -> Outcome:
        """Faults, then none; what must hold is checked after every event, and at the end that all goes on."""
        try:
            for index in self.world.keys.credentials:
                self._misfortunes(index)
            self._everyone_s()
            if goes_back(self.seed):
                self._operator_s()
            self.world.run_for(self.end - self.world.now)
            self._heal()
            self.guard.check()
        except Exception as error:
            # An error that comes out of a role is a finding as well.
            said = f"{type(error).__name__}: {error}\n  {command(self.seed)}\n  {self.shape}\n  {self.dice}"
            raise AssertionError(said) from error
        rounds = Counter(map(_name, self.world.outcomes()))
        if self.world.counts[0, "rollback"]:
            rounds["rollback"] = self.world.counts[0, "rollback"]
        return Outcome(rounds, self.guard.trace())

    def _started(self, index: int) -> None:
        self.liars.make(index)
        # Down several times in one round, it has only moments in which to end it.
        self._excuse(index, 0.0)

    # Faults.

    def _times(self, rate: float) -> list[float]:
        """When something happens that has this rate per round."""
        span = self.end - self.world.now
        expected = rate * span / ROUND_SECONDS
        number = int(expected) + (self.chance.random() < expected % 1)
        return [self.world.now + self.chance.uniform(0, span) for _ in range(number)]

    def _at(self, time: float, event: Callable[[], None]) -> None:
        """Faults stop at the end."""
        self.world.at(time, lambda: event() if self.world.now < self.end else None)

    def _misfortunes(self, index: int) -> None:
        """Crashes at any of this machine's actions, naps, disks that fail, clocks that are wrong."""
        world, dice, chance = self.world, self.dice, self.chance
        for time in self._times(dice.crashes):
            crash = Crash(chance.choice((None, 0, 1, 2, 3, 5, 8)), chance.uniform(0.1, 20), chance.random() < 0.7)
            self._at(time, lambda crash=crash: self._crash_soon(index, crash))  # type: ignore[misc]
        for time in self._times(dice.naps if index else 0.0):
            keep = chance.random() < 0.5
            self._at(time, lambda keep=keep: world.crash(index, keep_session=keep))  # type: ignore[misc]
            world.at(time + chance.uniform(5, 200), lambda: world.start(index))
        for time in self._times(dice.disk_errors):
            self._at(time, lambda: self._break_disk(index))
            self._at(time + chance.uniform(1, 60), lambda: world.broken_disks.discard(index))
        for time in self._times(dice.copies if index else 0.0):
            age, downtime = chance.uniform(1, 300), chance.uniform(1, 20)
            self._at(time, lambda age=age, downtime=downtime: self._copy(index, age, downtime))  # type: ignore[misc]
        if dice.clock_jumps and chance.random() < 0.3:
            self._jump(index)
        for time in self._times(dice.clock_jumps):
            self._at(time, lambda: self._jump(index))

    def _crash_soon(self, index: int, crash: Crash) -> None:
        self.world.crashes[index, self.world.events[index] + self.chance.randint(1, 12)] = crash

    def _break_disk(self, index: int) -> None:
        self.world.broken_disks.add(index)
        self._excuse(index, 60 + GRACE)

    def _copy(self, index: int, age: float, downtime: float) -> None:
        """Copy a device's vault, and put the copy back when it is that old."""
        copy = dict(self.world.records[index].data)

        def put_back() -> None:
            # What a restored vault sits out it knows by its clock alone: one that is wrong then is no promise's matter.
            self.world.set_clock(index, 0.0)
            self.world.crash(index, keep_session=self.chance.random() < 0.5)
            self.world.put_back(index, copy)
            self.guard.put_back(index)
            self.world.at(self.world.now + downtime, lambda: self.world.start(index))

        self._at(self.world.now + age, put_back)

    def _jump(self, index: int) -> None:
        """A clock is set: by seconds, by years, or right."""
        chance = self.chance
        reach = chance.choice((5.0, 60.0, 3600.0, 86_400.0, YEAR, 10 * YEAR))
        ahead = 0.0 if chance.random() < 0.3 else chance.uniform(-reach, reach)
        if RESTORED not in self.world.records[index].data:  # until it is opened: see `_copy`
            self.world.set_clock(index, ahead)
        self._excuse(index, self.end - self.world.now)

    def _excuse(self, index: int, seconds: float) -> None:
        """The coordinator cannot end its rounds in time for a while."""
        if index == 0:
            self.guard.witness.excused = max(self.guard.witness.excused, self.world.now + seconds)

    def _everyone_s(self) -> None:
        """Brokers that lose everything, and parts of the fleet that lose the broker."""
        world, chance = self.world, self.chance
        for time in self._times(self.dice.wipes):
            self._at(time, world.restart_broker)
        machines = sorted(world.keys.credentials)
        for time in self._times(self.dice.partitions):
            lost = chance.sample(machines, k=chance.randint(1, len(machines) - 1))
            seconds = chance.uniform(1, 90)
            self._at(time, lambda lost=lost: world.cut(lost))  # type: ignore[misc]
            if 0 in lost:
                self._at(time, lambda seconds=seconds: self._excuse(0, seconds))  # type: ignore[misc]
            self._at(time + seconds, lambda lost=lost: world.mend(lost))  # type: ignore[misc]

    def _operator_s(self) -> None:
        """Models that are taken back; drawn apart, so that the other seeds draw what they always drew."""
        chance = random.Random(f"rollbacks {self.seed}")
        span = self.end - self.world.now
        for _ in range(chance.randint(1, 8)):
            self._at(self.world.now + chance.uniform(0, span), lambda: self._roll_back(chance))

    def _roll_back(self, chance: random.Random) -> None:
        """By up to one version more than the policy allows, which is refused."""
        world, newest = self.world, max(self.guard.witness.versions)
        if 0 in world.nodes and 0 not in world.broken_disks:
            with suppress(RefusedError):
                world.roll_back(max(0, newest - chance.randint(1, POLICY["rollback_versions"] + 1)))
            world.start(0)

    # Afterwards.

    def _heal(self) -> None:
        """No more faults and lies; everyone is back but one member, and rounds must be brought to their end again."""
        world = self.world
        self.liars.active = False
        world.faults, world.crashes = Faults(), {}
        world.broken_disks.clear()
        world.training_time = lambda index, plan: 1.0
        for index in world.keys.credentials:
            world.set_clock(index, 0.0)
        world.mend(list(world.keys.credentials))
        # With three members the policy asks for all of them in every set-up; and two participants there must be.
        members = range(self.shape.both + 1, self.shape.members + 1)
        away = self.chance.choice(members) if self.shape.members > 3 and not self.dice.lies else 0
        for index in world.keys.credentials:
            world.start(index)
        self.guard.witness.excused = world.now
        world.run_for(2 * ROUND_SECONDS + GRACE)
        if any("second-result" in lie.kinds for lie in self.dice.lies.values()):
            # Devices that hold another model for the true one refuse plans on the true one: a coordinator can stop its
            # fleet, and nothing is promised against that.
            return
        if away:
            world.crash(away, keep_session=True)
        before, applied = len(world.outcomes()), self._applied()
        # A set-up that failed is tried again after at most an hour; an epoch without the absent needs one, too.
        world.run(lambda world: self._applied() > applied + 1, deadline=3 * 3600.0)
        healed = len(world.outcomes())
        world.run(lambda world: len(world.outcomes()) >= healed + HEALED_ROUNDS, deadline=3 * 3600.0)
        outcomes = [_name(outcome) for outcome in world.outcomes()]
        expected = {"applied", "applied statistics"}
        if any(restoration.RECORD in world.records[index].data for index in world.keys.participants()):
            # Who was put back describes itself on no base for a day, and without it there may be too few.
            expected.add("aborted statistics")
        assert set(outcomes[healed:]) <= expected, f"all is well, and rounds end as {outcomes[before:]}"
        world.start(away or 1)
        world.run_for(GRACE)

    def _applied(self) -> int:
        return sum(outcome["outcome"] == "applied" for outcome in self.world.outcomes())


def _name(outcome: Mapping[str, object]) -> str:
    """How a round ended, those of statistics told apart."""
    return f"{outcome['outcome']} statistics" if "statistics" in outcome else str(outcome["outcome"])
