"""Whatever the network and the machines do, nothing is said twice, no wrong sum is applied, every round ends in time.

Each run is replayed by its seed, which stands in every assertion of the witness.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from signed_fleet import FleetKeys
from witness import GRACE, Witness
from world import Crash, Faults, RoundSettings, World, make_fleet

from edge_agent.work import Train
from hushfleet.actions import Erase, Note, Publish, Save, Subscribe, Unsubscribe, Wake
from hushfleet.mqtt.topics import Topics

SETTINGS = RoundSettings(collect=20, answer=8, recover=20, total=3)
PARTICIPANTS, MEMBERS = 3, 4
COORDINATOR, MEMBER, PARTICIPANT, BOTH = 0, 2, 7, 1
STRIDE = {COORDINATOR: 19, MEMBER: 11, PARTICIPANT: 9, BOTH: 13}
"""Every so-manieth place is tried in a test run; 1 tries them all."""


def fleet() -> FleetKeys:
    """Four members, one of which takes part in the rounds, and three more participants; epochs of two rounds."""
    return make_fleet(PARTICIPANTS, MEMBERS, both=1, epoch_rounds=2)


def results(world: World) -> int:
    """Rounds of which the result has left the coordinator, however often that crashed since."""
    topics = Topics(world.keys.fleet)
    kinds = ((topics.parse(sent.topic), sent.payload) for sent in world.broker.log)
    return len({at.round_number for at, payload in kinds if at.kind == "result" and payload})


def run_to_the_end(world: World, rounds: int) -> Witness:
    """Until so many rounds have a result, and everything that is owed has come in."""
    count = 0

    def done(world: World) -> bool:
        nonlocal count
        count += 1
        return count % 50 == 0 and results(world) >= rounds

    world.run(done, deadline=7200.0)
    world.faults = Faults()
    world.run_for(GRACE + 60)
    witness = Witness(world)
    witness.check()
    return witness


def applied(witness: Witness) -> int:
    return sum(result.outcome == 0 for result in witness.results.values())


NETWORKS = {
    "loss": Faults(loss=0.05),
    "doubling": Faults(doubling=0.3),
    "reordering": Faults(delay=0.3, longest_delay=4.0),
    "everything": Faults(loss=0.03, doubling=0.1, delay=0.15, longest_delay=8.0),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_bad_network_costs_uploads_but_never_a_sum(name: str, seed: int) -> None:
    world = World(fleet(), seed=(name, seed), rounds=SETTINGS, faults=NETWORKS[name], chunk=256)
    witness = run_to_the_end(world, 3)
    assert applied(witness) >= 1, f"seed {world.seed}: {world.outcomes()}"


@pytest.mark.parametrize("seed", range(3))
def test_what_a_network_only_delays_or_doubles_is_in_every_sum(seed: int) -> None:
    faults = Faults(doubling=0.2, delay=0.3, longest_delay=3.0)
    world = World(fleet(), seed=("late", seed), rounds=RoundSettings(collect=60, total=3), faults=faults, chunk=256)
    witness = run_to_the_end(world, 3)
    for number, result in witness.results.items():
        included = [index for index in world.keys.participants() if result.includes(index)]
        assert included == world.keys.participants(), f"round {number}, seed {world.seed}"


@pytest.mark.parametrize("seed", range(4))
def test_a_broker_that_restarts_empty_loses_nothing_that_was_accepted(seed: int) -> None:
    world = World(fleet(), seed=("wiped", seed), rounds=SETTINGS, chunk=256)
    moments = random.Random(seed)
    time = world.now
    for _ in range(6):
        time += moments.uniform(0.5, 9.0)
        world.at(time, world.restart_broker)
    witness = run_to_the_end(world, 3)
    assert applied(witness) >= 2, f"seed {world.seed}: {world.outcomes()}"


@pytest.mark.parametrize("seed", range(8))
def test_every_role_crashes_at_random_moments_on_a_bad_network(seed: int) -> None:
    chance = random.Random(seed)
    faults = Faults(loss=0.01, doubling=0.05, delay=0.1, longest_delay=3.0)
    world = World(fleet(), seed=("crashes", seed), rounds=SETTINGS, faults=faults, chunk=256)
    for _ in range(10):
        machine, event = chance.choice([COORDINATOR, COORDINATOR, 1, 2, 3, 4, 5, 6, 7]), chance.randrange(1, 250)
        world.crashes[machine, event] = Crash(
            chance.choice([None, 0, 1, 2, 4]), chance.uniform(0.1, 15.0), chance.random() < 0.6
        )
    witness = run_to_the_end(world, 3)
    assert applied(witness) >= 1, f"seed {world.seed}: {world.outcomes()}"


class Watched(World):
    """Notes for each event of each machine how many of its actions leave, if the event does anything at all."""

    def perform(self, index: int, actions: Sequence[Any]) -> bool:
        alive = super().perform(index, actions)
        records = any(isinstance(action, Save | Erase) for action in actions)
        leaving = sum(isinstance(action, Publish | Subscribe | Unsubscribe | Wake | Train) for action in actions)
        if records or leaving:
            self.effects[index][self.events[index]] = leaving
        return alive

    effects: ClassVar[dict[int, dict[int, int]]] = {}


def boundaries(machine: int) -> list[tuple[int, int | None]]:
    """Every place where the machine can die in three rounds with an effect: (event, actions that still leave)."""
    Watched.effects = defaultdict(dict)
    run_to_the_end(Watched(fleet(), seed="boundaries", rounds=SETTINGS, chunk=256), 3)
    places: list[tuple[int, int | None]] = []
    for event, leaving in Watched.effects[machine].items():
        places += [(event, None), *((event, sent) for sent in range(leaving + 1))]
    return places


@pytest.mark.parametrize("machine", [COORDINATOR, MEMBER, PARTICIPANT, BOTH])
def test_a_machine_may_die_at_every_action_boundary(machine: int) -> None:
    for event, sent in boundaries(machine)[:: STRIDE[machine]]:
        # Whether the broker still knows the machine changes from place to place.
        crash = Crash(sent, downtime=2.0, keep_session=(event + (sent or 0)) % 2 == 0)
        crashes = {(machine, event): crash}
        world = World(fleet(), seed=(machine, event, sent), rounds=SETTINGS, chunk=256, crashes=crashes)
        witness = run_to_the_end(world, 3)
        assert world.starts[machine] == 2, f"seed {world.seed}: it never died"
        # One machine that is away for two seconds ends no round and loses no upload.
        for number, result in witness.results.items():
            made = {index for _, index, note in world.notes if _uploaded(note, number)}
            included = {index for index in world.keys.credentials if result.includes(index)}
            assert (result.outcome, included) == (0, made), f"round {number}, seed {world.seed}"


def _uploaded(note: Note, number: int) -> bool:
    return note.event == "uploading" and note.fields["round"] == number


def test_a_frozen_set_stays_as_it_is_over_a_restart() -> None:
    """An upload that completes while the coordinator is away from a frozen round stays out of its set."""
    late = 7
    rounds = RoundSettings(collect=60, answer=8, recover=40, enough=0.5, patience=5.0, total=1)
    world = World(fleet(), rounds=rounds, chunk=256)
    world.training_time = lambda index, plan: 10.0 if index == late else 1.0
    # Nobody has answered when it dies, just after the set was shown.
    world.run(lambda world: world.counts[COORDINATOR, "frozen"] == 1)
    world.crash(COORDINATOR, keep_session=True)
    world.run(world.noted(late, "uploading"))
    world.run_for(1)
    world.start(COORDINATOR)
    world.run(world.rounds_ended(1))
    world.run_for(30)
    witness = Witness(world)
    witness.check()
    assert witness.results[1].outcome == 0
    assert not witness.results[1].includes(late)
