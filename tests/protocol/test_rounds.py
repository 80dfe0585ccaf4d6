"""Rounds over epochs: what opens is exactly the sum, for whoever took part, and every device follows it bit for bit."""

from collections.abc import Callable, Iterable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_broker import Sent
from numpy.typing import NDArray
from witness import Witness
from world import FleetKeys, RoundSettings, World, height, make_fleet

from hushfleet.actions import Publish
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash
from hushfleet.mqtt.topics import Parsed, Topics
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import CLOSED, MEMBERS_MISSING, REFUSED, TOO_FEW, Plan, Receipt


def spec(keys: FleetKeys) -> ModelSpec:
    return read(keys.documents["model"], ModelSpec)


def silence(world: World, chosen: Callable[[int, Parsed], bool]) -> None:
    """Messages of which (sender, topic) is chosen never reach the broker."""
    topics = Topics(world.keys.fleet)

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        return [] if chosen(sender, topics.parse(publish.topic)) else [publish]

    world.tamper = tamper


def sent(world: World, kind: str) -> list[Sent]:
    """What reached the broker under a kind of topic, cleared topics apart."""
    topics = Topics(world.keys.fleet)
    return [sent for sent in world.broker.log if sent.payload and topics.parse(sent.topic).kind == kind]


def mean_step(flat: NDArray[np.float32], included: list[int], round_number: int) -> NDArray[np.float32]:
    """One version further, computed from the updates in the clear."""
    update = np.zeros(len(flat))
    for index in included:
        update[index] += height(round_number)
    return flat + (update / len(included)).astype(np.float32)


def at_version(number: int) -> Callable[[World], bool]:
    """Whether the coordinator and every device hold that version."""

    def holds(world: World) -> bool:
        devices = [world.device(index) for index in world.nodes if index]
        return len(world.outcomes()) >= number and all(device.live.version == number for device in devices)

    return holds


def test_after_each_round_every_device_holds_exactly_the_mean_of_the_updates() -> None:
    keys = make_fleet(5, 4, both=2)
    world = World(keys, rounds=RoundSettings(collect=60, answer=10, recover=30, total=9))
    model = spec(keys)
    expected = initial_flat(model.layers, model.init)
    for round_number in range(1, 10):
        world.run(at_version(round_number))
        expected = mean_step(expected, keys.participants(), round_number)
        for index in world.nodes:
            if index:
                assert np.array_equal(world.device(index).live.flat(model), expected)
                assert world.device(index).live.hash == model_hash(expected)
        assert world.conductor.round.models.current(model, keys.documents["model"].hash(keys.fleet)) == (
            round_number,
            model_hash(expected),
        )
    Witness(world).check()


@st.composite
def fleets(draw: st.DrawFn) -> tuple[int, int, int, list[set[int]], list[set[int]]]:
    """Participants, members, f; then who is gone and which members are lost, round by round."""
    f = draw(st.integers(0, 2))
    members, participants = draw(st.integers(f + 2, f + 4)), draw(st.integers(2, 6))
    gone = st.sets(st.integers(members + 1, members + participants))
    lost = st.sets(st.integers(1, members), max_size=f + 1)
    return participants, members, f, draw(st.lists(gone, min_size=3, max_size=3)), [draw(lost) for _ in range(3)]


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(fleets(), st.sampled_from([256, 4096]))
def test_any_fleet_with_any_dropouts_opens_the_survivors_sum_or_says_why_not(
    fleet: tuple[int, int, int, list[set[int]], list[set[int]]], chunk: int
) -> None:
    participants, members, f, gone, lost = fleet
    keys = make_fleet(participants, members, recoveries=f, committee_min=members)
    world = World(keys, rounds=RoundSettings(collect=30, answer=8, recover=20, total=3), chunk=chunk)

    def drops_out(sender: int, at: Parsed) -> bool:
        if at.kind != "up" or not 1 <= at.round_number <= 3:
            return False
        if at.name == "upload":
            # Half of them get as far as the header.
            return sender in gone[at.round_number - 1] and (at.chunk > 0 or sender % 2 == 0)
        return sender in lost[at.round_number - 1]

    silence(world, drops_out)
    world.run(world.rounds_ended(3))
    world.run_for(60)
    for outcome, absent, silent in zip(world.outcomes(), gone, lost, strict=True):
        present = participants - len(absent)
        if present < 2:
            assert (outcome["outcome"], outcome["reason"]) == ("aborted", TOO_FEW)
        elif len(silent) > f:
            assert (outcome["outcome"], outcome["reason"]) == ("aborted", MEMBERS_MISSING)
        else:
            assert (outcome["outcome"], outcome["uploads"]) == ("applied", present)
            assert outcome["recovered"] == sorted(silent)
    witness = Witness(world)
    witness.check()
    for number, result in witness.results.items():
        if result.outcome == 0:
            assert {index for index in keys.participants() if result.includes(index)} == (
                set(keys.participants()) - gone[number - 1]
            )


def test_epochs_follow_each_other_without_a_pause() -> None:
    world = World(make_fleet(3, 4), rounds=RoundSettings(collect=60, answer=10, recover=30, total=14))
    world.run(world.rounds_ended(14))
    topics = Topics(world.keys.fleet)
    plans = [(entry.time, read(Frame.from_bytes(entry.payload), Plan)) for entry in sent(world, "plan")]
    ended = [entry.time for entry in sent(world, "result")]
    assert [plan.round for _, plan in plans] == list(range(1, 15))
    assert len({plan.epoch for _, plan in plans}) == 4
    assert all(outcome["outcome"] == "applied" for outcome in world.outcomes())
    # The next committee is ready before the last round of the one before it ends.
    ready = {topics.parse(entry.topic).epoch: entry.time for entry in sent(world, "transcript")}
    assert all(ready[plan.epoch] < before for (_, plan), before in zip(plans[1:], ended, strict=False))
    # No round waited for a committee: each plan is out as soon as the result before it is.
    assert all(time - before < 1.0 for (time, _), before in zip(plans[1:], ended, strict=False))
    Witness(world).check()


def test_a_device_away_for_whole_rounds_and_over_an_epoch_catches_up() -> None:
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=30, answer=8, recover=20, total=12))
    away = 8
    world.run(at_version(1))
    world.crash(away)
    world.run(world.rounds_ended(7))
    before = len(world.broker.asked)
    world.start(away)
    world.run(world.rounds_ended(12))
    world.run_for(5)
    assert world.device(away).live.version == 12
    fetched = [topic for client, topic in world.broker.asked[before:] if client == away and "/model/" in topic]
    topics = Topics(world.keys.fleet)
    # Too far behind for a chain of deltas; then one delta a round.
    assert topics.model(7, "snapshot", 0) in fetched
    assert not {topics.model(version, "delta", 0) for version in range(4, 8)} & set(fetched)
    assert fetched[-5:] == [topics.model(version, "delta", 0) for version in range(8, 13)]
    included = [number for number, result in Witness(world).results.items() if result.includes(away)]
    assert included == [1, 8, 9, 10, 11, 12]
    Witness(world).check()


def test_a_device_away_for_two_rounds_replays_their_deltas() -> None:
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=30, answer=8, recover=20, total=5))
    world.run(at_version(1))
    world.crash(8)
    world.run(lambda world: world.counts[0, "plan"] == 4)
    world.run_for(1)
    before = len(world.broker.asked)
    world.start(8)
    world.run(world.rounds_ended(5))
    world.run_for(5)
    fetched = [topic for client, topic in world.broker.asked[before:] if client == 8 and "/model/" in topic]
    assert fetched
    assert not any("snapshot" in topic for topic in fetched)
    assert [number for number, result in Witness(world).results.items() if result.includes(8)] == [1, 4, 5]
    Witness(world).check()


def test_a_round_with_too_few_uploads_aborts_and_opens_nothing() -> None:
    world = World(make_fleet(3, 4, smallest_survivor_set=3), rounds=RoundSettings(collect=20, total=2))
    silence(world, lambda sender, at: (sender, at.name, at.round_number) == (7, "upload", 1))
    world.run(world.rounds_ended(2))
    first, second = world.outcomes()
    assert (first["outcome"], first["reason"], first["uploads"]) == ("aborted", TOO_FEW, 2)
    assert (second["outcome"], second["uploads"], second["version"]) == ("applied", 3, 1)
    topics = Topics(world.keys.fleet)
    downs = [topics.parse(entry.topic) for entry in sent(world, "down")]
    assert not [at for at in downs if at.name == "survivors" and at.round_number == 1]
    Witness(world).check()


def test_f_lost_members_are_recovered_and_one_more_ends_the_round_with_its_reason() -> None:
    keys = make_fleet(3, 6, recoveries=2, committee_min=6)
    world = World(keys, rounds=RoundSettings(collect=20, answer=8, recover=20, total=3))
    lost = {1: {2, 5}, 2: {1, 2, 5}, 3: {6}}
    silence(world, lambda sender, at: at.kind == "up" and sender in lost[at.round_number])
    world.run(world.rounds_ended(3))
    assert [(outcome["outcome"], outcome["reason"], outcome["recovered"]) for outcome in world.outcomes()] == [
        ("applied", 0, [2, 5]),
        ("aborted", MEMBERS_MISSING, []),
        ("applied", 0, [6]),
    ]
    Witness(world).check()


def test_an_upload_that_completes_after_the_freeze_is_refused_and_is_in_no_sum() -> None:
    world = World(make_fleet(4, 4), rounds=RoundSettings(collect=20, answer=8, recover=40, total=1), chunk=256)
    topics = Topics(world.keys.fleet)
    late, held = 8, []

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        at = topics.parse(publish.topic)
        if sender == 3 and at.kind == "up":
            # Without this member's answer the round stays open.
            return []
        if sender == late and at.name == "upload" and world.now < plan().closes + 2:
            held.append(publish)
            return []
        return [publish]

    def plan() -> Plan:
        return read(Frame.from_bytes(sent(world, "plan")[-1].payload), Plan)

    world.tamper = tamper
    world.run(world.noted(0, "frozen"))
    for publish in held:
        world.broker.publish(late, publish.topic, publish.payload, False)
    world.run_for(1)
    receipts = [
        read(Frame.from_bytes(entry.payload), Receipt)
        for entry in sent(world, "down")
        if topics.parse(entry.topic).device == late and topics.parse(entry.topic).name == "receipt"
    ]
    assert [(receipt.state, receipt.reason) for receipt in receipts] == [(REFUSED, CLOSED)]
    assert world.counts[late, "refused-upload"] == 1
    world.run(world.rounds_ended(1))
    assert world.outcomes()[0]["uploads"] == 3
    witness = Witness(world)
    witness.check()
    assert not witness.results[1].includes(late)


def test_enough_uploads_close_a_round_after_the_stragglers_had_their_time() -> None:
    keys = make_fleet(4, 4)
    speeds = {5: 1.0, 6: 1.0, 7: 5.0, 8: 40.0}
    for patience, uploads in ((0.0, 2), (8.0, 3), (50.0, 4)):
        rounds = RoundSettings(collect=90, answer=10, recover=30, enough=0.5, patience=patience, total=1)
        world = World(keys, rounds=rounds)
        world.training_time = lambda index, plan: speeds[index]
        world.run(world.rounds_ended(1))
        assert world.outcomes()[0]["uploads"] == uploads
        opened = sent(world, "plan")[0].time
        frozen = next(time for time, index, note in world.notes if note.event == "frozen")
        # The slowest that is waited for, or the time for stragglers, and not a look at the clock later.
        assert frozen - opened < 1.0 + min(patience, 40.0) + 0.5
        Witness(world).check()


def test_rounds_keep_the_policys_interval() -> None:
    world = World(make_fleet(3, 4, interval=100), rounds=RoundSettings(collect=20, answer=8, recover=20, total=3))
    world.run(world.rounds_ended(3))
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 3
    plans, results = sent(world, "plan"), sent(world, "result")
    assert all(plan.time >= result.time + 100 for plan, result in zip(plans[1:], results, strict=False))


def test_a_plan_never_reaches_beyond_its_epochs_end() -> None:
    keys = make_fleet(3, 4, epoch_age=200, epoch_rounds=12)
    world = World(keys, rounds=RoundSettings(collect=60, answer=10, recover=30, enough=2.0, total=8))
    silence(world, lambda sender, at: (sender, at.name) == (7, "upload"))
    world.run(world.rounds_ended(8))
    witness = Witness(world)
    witness.check()
    assert len({plan.epoch for plan in witness.plans.values()}) > 2
    assert [outcome["outcome"] for outcome in world.outcomes()] == ["applied"] * 8
