"""The sums of statistics rounds on their way to the devices: verified, kept, told again, and what is refused."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_rounds import sent
from witness import Witness
from world import FleetKeys, RoundSettings, World, make_fleet

from coordinator.statistics import OPENED, Opened, Statistics
from edge_agent.opened_sums import RECORD, _Kept
from hushfleet.actions import Publish
from hushfleet.judgement import judge
from hushfleet.mqtt.topics import Topics
from hushfleet.statistics import Numbers, describe
from hushfleet.wire.documents import Policy
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.round import Plan, Sums
from hushfleet.wire.schema import Schema

PARTICIPANTS = (5, 6, 7, 8)
ANOMALIES: dict[str, Any] = {"task": "anomaly", "classes": ()}


def fleet(**windows: Any) -> FleetKeys:
    return make_fleet(4, 4, noiseless_statistics=1).with_schema(**(ANOMALIES | windows))


def world_of(keys: FleetKeys, chunk: int = 4096, **rounds: Any) -> World:
    """Devices whose models are wrong by their index, the more the fewer rounds there were."""
    chosen: dict[str, Any] = {"collect": 60, "answer": 10, "recover": 30, "total": 3, "statistics_every": 1}
    world, schema = World(keys, rounds=RoundSettings(**(chosen | rounds)), chunk=chunk), schema_of(keys)

    def numbers(index: int, plan: Plan) -> NDArray[np.float64]:
        outputs = np.full((4, 16), index / (1 + plan.base))
        targets = np.zeros(4, np.int64) if schema.classes else np.zeros((4, 16))
        values = [np.full(4, 0.5)] * 2
        return describe(schema, 10, np.zeros(0, np.int64), values, [0.0, 0.0], judge(schema, [(outputs, targets)]))

    world.numbers = numbers
    return world


def schema_of(keys: FleetKeys) -> Schema:
    return read(keys.documents["schema"], Schema)


def finish(world: World) -> None:
    world.run(lambda world: world.conductor.finished)
    world.run_for(5)


@pytest.mark.parametrize("chunk", [256, 4096])
def test_devices_learn_what_opened_of_every_version_but_the_first(chunk: int) -> None:
    keys = fleet()
    world = world_of(keys, chunk)
    finish(world)
    kinds = [read(Frame.from_bytes(entry.payload), Plan).kind for entry in sent(world, "plan")]
    assert kinds == [1, 0, 1, 0, 1, 0, 1]
    opened = {found.base: found for _, value in world.records[0].scan(OPENED) for found in [Opened.from_body(value)]}
    assert sorted(opened) == [0, 1, 2, 3]
    for index in PARTICIPANTS:
        assert [told.version for told in world.judged[index]] == [1, 2, 3]
        for told in world.judged[index]:
            found = opened[told.version]
            sums = np.frombuffer(found.sums, "<i8") / found.top
            assert told.devices == found.devices
            assert told.sums.flat().tolist() == Numbers.split(schema_of(keys), sums).flat().tolist()
    # The worst device's error after three versions is (8 / 4)^2.
    assert world.judged[5][-1].sums.judged.quantile(1.0) == pytest.approx(4, rel=0.2)
    assert world.judged[1] == []
    retained = {Topics(keys.fleet).parse(topic).kind for topic, payload in world.broker.retained.items() if payload}
    assert "sums" in retained
    Witness(world).check()


def test_a_device_tells_what_it_knows_again_after_a_restart_and_one_that_was_away_fetches_it() -> None:
    world = world_of(fleet())
    world.run(world.rounds_ended(1))
    world.crash(8)
    finish(world)
    world.crash(5)
    asked = len(sent(world, "sums"))
    for index in (5, 8):
        world.start(index)
    world.run_for(5)
    assert [told.version for told in world.judged[5]] == [1, 2, 3, 3]
    assert [told.version for told in world.judged[8]] == [3]
    assert len(sent(world, "sums")) == asked


def test_the_newest_sums_and_their_result_stay_while_others_go() -> None:
    keys = fleet()
    topics = Topics(keys.fleet)
    world = world_of(keys, total=24, statistics_every=23)
    world.run(world.rounds_ended(24))
    kept = {topic for topic, payload in world.broker.retained.items() if payload}
    assert {topics.result(1), topics.sums(1, 0)} <= kept
    assert topics.result(2) not in kept
    world.crash(8)
    finish(world)
    kept = {topic for topic, payload in world.broker.retained.items() if payload}
    assert topics.sums(27, 0) in kept
    assert topics.sums(1, 0) not in kept
    world.start(8)
    world.run_for(5)
    assert [told.version for told in world.judged[8]] == [24]


def test_what_fewer_than_the_smallest_survivor_set_have_told_the_coordinator_learns_and_nobody_else() -> None:
    """Of four devices one alone measures the second channel, and has rows to judge a model on."""
    keys = fleet()
    schema, fewest = schema_of(keys), read(keys.documents["policy"], Policy).smallest_survivor_set
    assert fewest == 2
    world = world_of(keys)

    def numbers(index: int, plan: Plan) -> NDArray[np.float64]:
        alone = index == 5 or (index == 6 and plan.base == 2)
        rows = [(np.full((1, 16), 0.5), np.zeros((1, 16)))] if alone else []
        values = [np.full(4, 0.5), np.full(4 * alone, 0.25)]
        return describe(schema, 10, np.zeros(0, np.int64), values, [0.0, 1.0 - alone], judge(schema, rows))

    world.numbers = numbers
    finish(world)
    for told in world.judged[8]:
        here = [told.sums.channels[0], told.sums.channels[1], told.sums.judged.flat()]
        assert [bool(part.any()) for part in here] == [True, told.version == 2, told.version == 2]
    opened = [Opened.from_body(value) for _, value in world.records[0].scan(OPENED)]
    exact = numbers(5, replace(read(Frame.from_bytes(sent(world, "plan")[-1].payload), Plan), base=1))
    (found,) = (Numbers.split(schema, np.frombuffer(one.sums, "<i8") / one.top) for one in opened if one.base == 1)
    assert found.judged.flat() == pytest.approx(Numbers.split(schema, exact).judged.flat(), abs=1e-6)


def test_of_a_version_that_a_rollback_left_nobody_has_sums() -> None:
    """Neither who had them, nor who comes later, nor who is shown the old messages again."""
    keys = fleet()
    world, topics = world_of(keys, total=4, statistics_every=2, pause=5.0), Topics(keys.fleet)
    world.crash(8)
    world.run(lambda world: {5, 6, 7} <= world.judged.keys() and world.conductor.round.plan is None)
    (told,) = world.judged[5]
    number = max(found.round for _, value in world.records[0].scan(OPENED) for found in [Opened.from_body(value)])
    old = {topic: payload for topic, payload in world.broker.retained.items() if payload}
    shown = [(topic, old[topic]) for topic in (topics.result(number), topics.sums(number, 0))]
    world.crash(7)
    world.roll_back(told.version - 1)
    world.run(world.noted(0, "rollback"))
    world.run_for(2)
    assert not any(world.broker.retained.get(topic) for topic, _ in shown)
    world.crash(6)
    for topic, payload in shown:
        world.broker.publish(0, topic, payload, True)
    for index in (6, 7, 8):
        world.start(index)
    world.run_for(2)
    # Whoever was away has told them once more before it learned of the rollback.
    assert [len(world.judged[index]) for index in PARTICIPANTS] == [1, 1, 2, 0]
    kept = {index: world.records[index].get(RECORD) for index in PARTICIPANTS}
    assert not any(value and _Kept.from_body(value).body for value in kept.values())
    # The next round tells everyone anew.
    finish(world)
    assert all(world.judged[index][-1].version > told.version for index in PARTICIPANTS)


def test_for_classes_nothing_is_fetched() -> None:
    world = world_of(make_fleet(4, 4, noiseless_statistics=1).with_schema())
    finish(world)
    assert not world.judged
    assert not any(world.records[index].get(RECORD) for index in PARTICIPANTS)


# A coordinator that lies.


def forged(honest: Sums, lie: str) -> Sums:
    """Other sums of the same form."""
    numbers = np.frombuffer(honest.sums, "<u8").copy()
    match lie:
        case "twice as much":
            numbers *= 2
        case "another round":
            return replace(honest, plan=bytes(32))
        case "more devices":
            return replace(honest, devices=honest.devices + 1)
        case "fewer numbers":
            numbers = numbers[:-1]
        case "more than all":
            numbers[-1] = honest.devices * honest.top + 1
    return replace(honest, sums=numbers.tobytes())


def test_sums_that_the_result_does_not_name_are_refused() -> None:
    keys = fleet()
    world, topics = world_of(keys), Topics(keys.fleet)

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        if topics.parse(publish.topic).kind != "sums" or not publish.payload:
            return [publish]
        lie = forged(read(Frame.from_bytes(publish.payload), Sums), "twice as much")
        return [replace(publish, payload=keys.credentials[0].identity().frame(lie, keys.fleet).to_bytes())]

    world.tamper = tamper
    finish(world)
    assert not world.judged
    for index in PARTICIPANTS:
        assert world.records[index].get(RECORD) is None
        assert "not the sums that the result names" in world.why(index)


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("another round", "of another round than their result"),
        ("more devices", "of another round than their result"),
        ("fewer numbers", "not those of so many devices under the schema"),
        ("more than all", "not those of so many devices under the schema"),
    ],
)
def test_sums_that_cannot_be_are_refused_though_the_result_names_them(
    lie: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fleet()
    world, honest = world_of(keys), Statistics.published

    def published(self: Statistics, plan_hash: bytes, policy: Policy) -> Sums:
        sums = honest(self, plan_hash, policy)
        return sums if self.newest and self.newest.base == 1 else forged(sums, lie)

    monkeypatch.setattr(Statistics, "published", published)
    finish(world)
    for index in PARTICIPANTS:
        # What was told of the version before stays.
        assert [told.version for told in world.judged[index]] == [1]
        assert any(why in said for said in world.why(index))
