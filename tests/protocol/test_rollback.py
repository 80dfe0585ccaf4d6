"""The model goes back as the operator wants it: everyone to the same version, if the policy allows it, or nobody."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from guard import Guard
from liars import Liars
from test_rotated_rounds import fetched, fleet, make_world, rounds
from test_rotated_rounds import results as rotated_results
from test_rotated_rounds import version_of as rotated_version
from witness import SUMS, Witness
from world import Crash, Faults, RoundSettings, World, make_fleet

from coordinator.encoding import Codec, ServerOptimizer
from edge_agent.device import Device
from hushfleet.actions import Note
from hushfleet.errors import RefusedError
from hushfleet.mqtt.topics import Topics
from hushfleet.statistics import length
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import ABORTED, APPLIED, OPERATOR, ROLLBACK, STATISTICS, Metrics, Plan, Result
from hushfleet.wire.schema import Schema

ROUNDS = RoundSettings(collect=30, answer=8, recover=20, pause=5.0)
ASLEEP, LATE = 7, 8
"""A device that sleeps while the model goes back, and one that was never there before."""


def guarded(world: World) -> Guard:
    """Watch a world from its first event on."""
    return Guard(world, Liars(world, {}), recoveries=1)


def agreed(world: World) -> bool:
    """Whether everyone who runs holds the coordinator's model."""
    wanted = rotated_version(world)
    devices = [node for node in world.nodes.values() if isinstance(node, Device)]
    return all((device.live.version, device.live.hash) == wanted for device in devices)


def at_version(version: int) -> Callable[[World], bool]:
    return lambda world: 0 in world.nodes and rotated_version(world)[0] == version and agreed(world)


def notes(world: World, event: str) -> list[Note]:
    return [note for _, index, note in world.notes if index == 0 and note.event == event]


def plans(world: World) -> list[Plan]:
    found = [sent.payload for sent in world.broker.log if sent.topic == Topics(world.keys.fleet).plan()]
    return [read(Frame.from_bytes(payload), Plan) for payload in found]


def signed_rollback(world: World, number: int, base: int, version: int) -> None:
    """A coordinator that lies signs and publishes a rollback."""
    keys, hashes = world.keys, {result.version: result.version_hash for result in rotated_results(world)}
    between, nothing = (base, hashes[base], version, hashes[version]), Metrics(0, 0.0, 0, 0.0, 0, 0.0)
    result = Result(0, bytes(32), number, ROLLBACK, OPERATOR, *between, bytes(32), b"", 1.0, nothing)
    frame = keys.credentials[0].identity().frame(result, keys.fleet)
    world.broker.publish(0, Topics(keys.fleet).result(number), frame.to_bytes(), True)


# ---- everyone to the same version


def test_a_fleet_goes_back_two_versions_and_on_from_there_with_one_asleep_and_one_that_joins() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    guard = guarded(world)
    world.crash(LATE)
    world.run(lambda world: 0 in world.nodes and rotated_version(world)[0] == 5 and world.conductor.round.plan is None)
    before = {number: result.version_hash for number, result in guard.witness.results.items()}
    world.crash(ASLEEP, keep_session=True)
    world.roll_back(3)
    world.run(at_version(3))
    assert rotated_version(world) == (3, before[3])
    assert guard.witness.results[6].outcome == ROLLBACK
    world.run(lambda world: world.counts[0, "plan"] == 6)
    plan = guard.witness.plans[7]
    assert (plan.base, plan.base_hash) == (3, before[3])
    world.run(at_version(4))
    world.start(ASLEEP)
    world.start(LATE)
    world.run(at_version(7))
    world.run_for(1)
    assert {index for index in world.keys.participants() if guard.witness.results[10].includes(index)} == {5, 6, 7, 8}
    assert guard.witness.results[4].version_hash != guard.witness.results[7].version_hash
    guard.witness.check()


@pytest.mark.parametrize(
    ("codec", "optimizer", "newest", "target"),
    [
        ("default", "profile", 5, 3),
        ("default", "profile", 17, 12),
        ("fast", "profile", 17, 12),
        ("fast", "adam", 17, 12),
    ],
)
def test_the_same_with_the_rotated_codec_and_with_memory_also_over_a_key_frame(
    codec: Codec, optimizer: Literal["profile", "adam"], newest: int, target: int
) -> None:
    chosen = rounds(codec, 0, pause=5.0, server_optimizer=ServerOptimizer(optimizer))
    world, _ = make_world(fleet(rollback_versions=5), chosen)
    world.crash(LATE)
    world.run(lambda world: world.counts[0, "round"] == newest and world.conductor.round.plan is None, deadline=20_000)
    world.run_for(2)
    world.crash(ASLEEP)
    wanted = next(result for result in rotated_results(world) if result.version == target)
    world.roll_back(target)
    world.run(at_version(target), deadline=1000)
    assert rotated_version(world) == (target, wanted.version_hash)
    assert all(world.device(index).participant._residual.vector() is None for index in (4, 5, 6))
    world.run(lambda world: world.counts[0, "plan"] == newest + 1, deadline=1000)
    assert plans(world)[-1].base_hash == wanted.version_hash
    # Nobody has a residual: the step begins again as it once began.
    assert plans(world)[-1].step == plans(world)[0].step
    world.run(at_version(target + 3), deadline=1000)
    world.start(ASLEEP)
    world.start(LATE)
    world.run(at_version(target + 3), deadline=1000)
    over = newest // 16 > target // 16
    deltas = [("delta", version) for version in range(target + 1 if over else 1, target + 4)]
    assert fetched(world, LATE) == ([("snapshot", target)] if over else []) + deltas
    world.run(at_version(target + 5), deadline=1000)


def test_a_round_that_is_open_is_given_up() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    guard = guarded(world)
    world.run(lambda world: world.counts[0, "plan"] == 5 and world.conductor.round.accepted() >= 2)
    world.roll_back(2)
    world.run(at_version(2))
    assert [(result.outcome, result.reason) for number, result in guard.witness.results.items() if number >= 5] == [
        (ABORTED, OPERATOR), (ROLLBACK, OPERATOR)
    ]  # fmt: skip
    world.run(at_version(4))
    guard.witness.check()


def test_a_fleet_whose_rounds_are_all_run_goes_back_and_is_done_again() -> None:
    world = World(make_fleet(4, 4), rounds=replace(ROUNDS, total=3))
    guard = guarded(world)
    world.run(lambda world: world.conductor.finished and agreed(world))
    world.crash(ASLEEP)
    world.roll_back(0)
    world.run(lambda world: world.conductor.finished and rotated_version(world)[0] == 0 and agreed(world))
    world.start(ASLEEP)
    world.run(at_version(0))
    assert world.counts[0, "round"] == 3
    guard.witness.check()


@pytest.mark.parametrize("sent", [None, 0, 2])
@pytest.mark.parametrize("event", [1, 2, 5])
def test_whenever_the_coordinator_dies_the_model_has_gone_back_as_a_whole_or_not_at_all(
    event: int, sent: int | None
) -> None:
    world = World(make_fleet(2, 3), rounds=ROUNDS)
    guard = guarded(world)
    world.run(lambda world: world.counts[0, "plan"] == 4 and world.conductor.round.accepted() == 1)
    world.crashes[0, world.events[0] + event] = Crash(sent)
    world.roll_back(2)
    world.run(lambda world: world.counts[0, "rollback"] == 1 and at_version(2)(world))
    world.run(at_version(4))
    world.run_for(60)
    assert [result.outcome for result in guard.witness.results.values()][3:6] == [ABORTED, ROLLBACK, APPLIED]
    guard.witness.check()


@pytest.mark.parametrize("seed", range(4))
def test_a_fleet_in_which_all_kinds_of_things_fail_ends_with_one_model(seed: int) -> None:
    chance = random.Random(f"rollback {seed}")
    crashes = {
        (chance.randint(0, 7), chance.randint(10, 200)): Crash(
            chance.choice((None, 0, 1, 2, 3)), chance.uniform(0.1, 20), chance.random() < 0.5
        )
        for _ in range(12)
    }
    faults = Faults(chance.uniform(0, 0.05), 0.1, 0.2, chance.uniform(0.1, 6.0))
    world = World(make_fleet(4, 3), seed=seed, rounds=ROUNDS, faults=faults, crashes=crashes)
    guard = guarded(world)
    for _ in range(3):
        reached = len(world.outcomes()) + chance.randint(3, 5)
        world.run(lambda world: len(world.outcomes()) >= reached and 0 in world.nodes, deadline=10_000)  # noqa: B023
        models = world.conductor.round.models
        policy = world.conductor.context.documents().policy
        assert models._record is not None
        reachable = models.history.reachable(models._record, models.highest(), policy)
        if reachable:
            world.roll_back(chance.choice(reachable))
    world.faults, world.crashes = Faults(), {}
    world.run_for(60)
    for index in world.keys.credentials:
        world.start(index)
    ended = len(world.outcomes())
    world.run(lambda world: len(world.outcomes()) >= ended + 3 and agreed(world), deadline=10_000)
    assert world.counts[0, "rollback"] >= 1
    guard.witness.check()


def test_whoever_slept_through_it_hears_of_it_however_many_rounds_came_to_nothing_since() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    world.run(at_version(5))
    world.crash(ASLEEP)
    world.roll_back(3)
    world.run(at_version(3))
    topics = Topics(world.keys.fleet)
    world.tamper = lambda sender, publish: [] if topics.parse(publish.topic).name == "upload" else [publish]
    world.run(lambda world: world.counts[0, "round"] >= 30, deadline=10_000)
    world.start(ASLEEP)
    world.run(at_version(3), deadline=60)


def test_whoever_missed_the_rollback_itself_asks_for_it() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    world.run(at_version(5))
    lost = Topics(world.keys.fleet).result(world.conductor.round.last + 1)
    world.faults = Faults(loss=1.0, hits=lambda topic: topic == lost)
    world.roll_back(3)
    world.run(lambda world: rotated_version(world)[0] == 3)
    world.run_for(1)
    world.faults = Faults()
    assert world.device(ASLEEP).live._known()[0] == 5
    world.run(at_version(3), deadline=120)
    world.run(at_version(4), deadline=200)


def test_whoever_missed_it_does_not_see_past_it_to_a_statistics_round() -> None:
    keys = make_fleet(4, 4, noiseless_statistics=1).with_schema()
    world = World(keys, rounds=replace(ROUNDS, statistics_every=1))
    world.numbers = lambda index, plan: np.eye(1, length(read(keys.documents["schema"], Schema)))[0]
    world.run(lambda world: world.counts[0, "plan"] == 4)
    lost = Topics(keys.fleet).result(5)
    world.faults = Faults(loss=1.0, hits=lambda topic: topic == lost)
    world.roll_back(0)
    world.run(lambda world: world.counts[0, "plan"] == 5)
    assert plans(world)[-1].kind == STATISTICS
    world.run_for(1)
    world.faults = Faults()
    world.run(at_version(0), deadline=120)
    world.run(at_version(1), deadline=200)


def test_a_round_that_it_takes_from_an_epoch_under_way_leaves_no_secret() -> None:
    world = World(make_fleet(3, 4, committee_min=4), rounds=ROUNDS)
    guard = guarded(world)
    world.run(world.rounds_ended(2))
    world.crash(1)
    world.run(lambda world: world.counts[0, "round"] == 4)
    world.roll_back(2)
    world.run(lambda world: world.counts[0, "rollback"] == 1)
    world.start(1)
    world.run(at_version(4), deadline=4000)
    guard.witness.check()


# ---- and no further than the policy allows


def test_the_coordinator_says_which_versions_can_be_reached() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    world.run(at_version(6))
    for version in (2, 6, 7):
        with pytest.raises(RefusedError, match=r"the policy allows 3 behind the highest there was, 6; .* 3, 4, 5$"):
            world.conductor.round.want_rollback(version)
    world.roll_back(4)
    world.run(at_version(4))
    with pytest.raises(RefusedError, match=r"behind the highest there was, 6; .* 3$"):
        world.conductor.round.want_rollback(2)
    world.roll_back(3)
    world.run(at_version(3))
    with pytest.raises(RefusedError, match=r"from version 3 to 2: .* none can be reached yet"):
        world.conductor.round.want_rollback(2)


def test_a_policy_that_allows_less_by_then_stops_the_rollback_before_it_is_signed() -> None:
    world = World(make_fleet(4, 4), rounds=ROUNDS)
    world.run(at_version(6))
    world.keys = world.keys.next_version(2, rollback_versions=1)
    world.roll_back(3)
    world.run(lambda world: world.counts[0, "plan"] == 8)
    (note,) = notes(world, "rollback-refused")
    assert "allows 1 behind the highest there was, 6" in str(note.fields["why"])
    assert not world.counts[0, "rollback"]
    Witness(world).check()


def test_without_the_owners_policy_no_version_is_kept() -> None:
    world = World(make_fleet(4, 4, rollback_versions=0), rounds=ROUNDS)
    world.run(at_version(2))
    assert not [key for key in world.records[0].data if key.startswith("history/")]
    with pytest.raises(RefusedError, match=r"the policy allows no rollback"):
        world.conductor.round.want_rollback(1)


@pytest.mark.parametrize("way", [[2], [3, 2], [5, 4, 3, 2]], ids=["at once", "in two steps", "in many steps"])
@pytest.mark.parametrize("restart", [False, True])
def test_no_device_follows_a_lying_coordinator_further_back(way: list[int], restart: bool) -> None:
    """Steps of which each is allowed lead no further than one: what counts is the highest version ever known."""
    world = World(make_fleet(4, 4), rounds=replace(ROUNDS, total=6))
    world.run(lambda world: world.conductor.finished and agreed(world))
    base = 6
    for number, version in enumerate(way, start=7):
        signed_rollback(world, number, base, version)
        world.run_for(2)
        base = version
        if restart:
            for index in range(1, 9):
                world.crash(index)
                world.start(index)
            world.run_for(2)
    allowed = min(6, *(version for version in [6, *way] if version >= 3))
    for index in range(1, 9):
        device = world.device(index)
        assert device.live._known()[0] == allowed
        assert any(f"from version 6 back to {way[-1]}" in why for why in world.why(index))
    assert "goes back from" in Witness(world).wrong[SUMS][0]


def test_a_result_that_overtakes_its_rollback_is_followed_after_it() -> None:
    world = World(make_fleet(4, 4), rounds=replace(ROUNDS, total=5))
    world.run(lambda world: world.conductor.finished and agreed(world))
    world.crash(ASLEEP)
    world.rounds = replace(ROUNDS, total=6)
    world.roll_back(2)
    world.run(lambda world: world.conductor.finished and at_version(3)(world))
    names, retained = Topics(world.keys.fleet), world.broker.retained
    newest, back = names.result(7), names.result(6)
    held = {topic: retained.pop(topic) for topic in (newest, back)}
    world.start(ASLEEP)
    world.run_for(1)
    assert world.device(ASLEEP).live.version == 5
    for topic in (newest, back):
        world.broker.publish(-1, topic, held[topic], True)
        world.run_for(0.1)
    world.run(at_version(3), deadline=60)
    assert any("from version 5 back to 3" in why for why in world.why(ASLEEP))
