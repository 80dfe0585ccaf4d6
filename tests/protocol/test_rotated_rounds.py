"""Whole fleets with the rotated codec: one model everywhere, residuals that lose nothing, cheap ways to a model."""

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from witness import GRACE
from world import Crash, Faults, FleetKeys, RoundSettings, World, make_fleet

from coordinator.encoding import Codec, ServerOptimizer
from edge_agent.device import Device
from edge_agent.live_model import RECORD, _Record
from hushfleet.actions import Publish
from hushfleet.codec import LocalReport, pack_opened
from hushfleet.encoding.grid import Grid
from hushfleet.learning.layers import initial_flat
from hushfleet.learning.server import model_hash, snapshot
from hushfleet.mqtt.topics import Topics
from hushfleet.rotated import encode_rotated
from hushfleet.secagg.residues import signed
from hushfleet.wire.documents import ModelSpec
from hushfleet.wire.framing import Frame, read
from hushfleet.wire.layers import Dense
from hushfleet.wire.round import APPLIED, Delta, Plan, Result, positions

LAYERS = (Dense(30, 20, "none"), Dense(20, 4, "none"))
PROFILE, ADAM = ServerOptimizer(), ServerOptimizer("adam", rate=0.01)
PARAMETERS = 30 * 20 + 20 + 20 * 4 + 4


def goal() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal(PARAMETERS).astype(np.float32) * np.float32(0.05)


def rounds(codec: Codec, total: int, **changed: object) -> RoundSettings:
    return RoundSettings(codec=codec, collect=30, answer=8, recover=20, total=total, **changed)  # type: ignore[arg-type]


def fleet(participants: int = 5, members: int = 3, **changed: object) -> FleetKeys:
    return make_fleet(participants, members, layers=LAYERS, clip=2.0, **changed)  # type: ignore[arg-type]


class Learners:
    """Devices that each go a twelfth of the way from their model to the goal, with noise of their own."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.deltas: dict[tuple[int, int], NDArray[np.float32]] = {}

    def update(self, index: int, plan: Plan) -> NDArray[np.float32]:
        assert self.world is not None
        flat = self.world.device(index).live.flat(spec(self.world.keys))
        noise = np.random.default_rng([index, plan.round]).standard_normal(PARAMETERS) * 0.003
        delta: NDArray[np.float32] = ((goal() - flat) / 12 + noise).astype(np.float32)
        self.deltas[index, plan.round] = delta
        return delta


def make_world(keys: FleetKeys, settings: RoundSettings, **changed: object) -> tuple[World, Learners]:
    learners = Learners()
    world = World.__new__(World)
    learners.world = world
    world.__init__(keys, rounds=settings, update=learners.update, **changed)  # type: ignore[misc]
    return world, learners


def spec(keys: FleetKeys) -> ModelSpec:
    return read(keys.documents["model"], ModelSpec)


def agreed(world: World) -> Callable[[World], bool]:
    """Whether the rounds are over and everyone who runs holds the coordinator's model."""

    def holds(world: World) -> bool:
        if not world.conductor.finished:
            return False
        wanted = version_of(world)
        devices = [node for node in world.nodes.values() if isinstance(node, Device)]
        return all((device.live.version, device.live.hash) == wanted for device in devices)

    return holds


def version_of(world: World) -> tuple[int, bytes]:
    documents = world.conductor.context.documents()
    return world.conductor.round.models.current(documents.model, documents.model_hash)


def results(world: World) -> list[Result]:
    topics, found = Topics(world.keys.fleet), {}
    for sent in world.broker.log:
        if sent.payload and topics.parse(sent.topic).kind == "result":
            result = read(Frame.from_bytes(sent.payload), Result)
            found[result.round] = result
    return [found[number] for number in sorted(found)]


def fetched(world: World, receiver: int) -> list[tuple[str, int]]:
    """(kind, version) of the model's messages that a device asked for, in order, each once."""
    topics = Topics(world.keys.fleet)
    asked = [
        topics.parse(pattern) for client, pattern in world.broker.asked if client == receiver and "/model/" in pattern
    ]
    return list(dict.fromkeys((at.name, at.version) for at in asked if at.kind == "model"))


def distance(world: World) -> float:
    """How far the model still is from the goal, of the way there was."""
    model = spec(world.keys)
    flat = world.conductor.round.models.flat(model)
    start = initial_flat(model.layers, model.init)
    return float(np.linalg.norm(flat - goal()) / np.linalg.norm(start - goal()))


@pytest.mark.parametrize(
    ("codec", "optimizer", "total", "nearer"),
    [
        ("default", PROFILE, 40, 0.25),
        ("thrift", PROFILE, 40, 0.6),
        ("fast", PROFILE, 12, 0.1),
        ("fast", ADAM, 20, 0.25),
        ("plain", ADAM, 20, 0.25),
    ],
)
def test_a_fleet_learns_and_everyone_holds_the_same_model(
    codec: Codec, optimizer: ServerOptimizer, total: int, nearer: float
) -> None:
    world, _ = make_world(fleet(), rounds(codec, total, server_optimizer=optimizer))
    world.run(agreed(world), deadline=20_000)
    assert [result.outcome for result in results(world)] == [APPLIED] * total
    assert distance(world) < nearer


# ---- what a device has to fetch


def test_devices_that_were_there_fetch_deltas_alone_also_at_key_frames() -> None:
    world, _ = make_world(fleet(), rounds("default", 18))
    world.run(agreed(world), deadline=20_000)
    for index in world.keys.participants():
        assert fetched(world, index) == [("delta", version) for version in range(1, 19)]


@pytest.mark.parametrize(
    ("codec", "optimizer", "bytes_each"), [("default", PROFILE, 1), ("fast", PROFILE, 2), ("fast", ADAM, 5)]
)
def test_a_device_that_joins_late_fetches_the_key_frame_and_the_deltas_from_there(
    codec: Codec, optimizer: ServerOptimizer, bytes_each: int
) -> None:
    world, _ = make_world(fleet(), rounds(codec, 35, server_optimizer=optimizer))
    world.crash(8)
    world.run(world.rounds_ended(35), deadline=20_000)
    world.start(8)
    world.run(agreed(world), deadline=1000)
    newest = version_of(world)[0]
    assert fetched(world, 8) == [("snapshot", 32), *(("delta", version) for version in range(33, newest + 1))]
    topic = Topics(world.keys.fleet).model(32, "snapshot", 0)
    scales = 4 * (2 if bytes_each == 2 else 1)
    assert len(world.broker.retained[topic]) == 1 + scales + bytes_each * PARAMETERS


@pytest.mark.parametrize(("codec", "optimizer"), [("default", PROFILE), ("fast", ADAM)])
def test_a_device_that_joins_midway_trains_from_where_the_fleet_is(codec: Codec, optimizer: ServerOptimizer) -> None:
    world, learners = make_world(fleet(), rounds(codec, 22, server_optimizer=optimizer))
    world.crash(8)
    world.run(world.rounds_ended(18), deadline=20_000)
    before = distance(world)
    world.start(8)
    world.run(agreed(world), deadline=20_000)
    first = min(number for index, number in learners.deltas if index == 8)
    assert first <= 20
    assert [8 in positions(result.included) for result in results(world)[17:]] == [
        number >= first for number in range(18, 23)
    ]
    assert {result.outcome for result in results(world)} == {APPLIED}
    lengths = {
        index: float(np.linalg.norm(delta)) for (index, number), delta in learners.deltas.items() if number == first
    }
    assert lengths.pop(8) == pytest.approx(max(lengths.values()), rel=0.1)
    assert distance(world) < before


def test_a_device_that_joins_late_fetches_the_moments_too_with_the_plain_codec() -> None:
    world, _ = make_world(fleet(), rounds("plain", 5, server_optimizer=ADAM))
    world.crash(8)
    world.run(world.rounds_ended(5), deadline=20_000)
    world.start(8)
    world.run(agreed(world), deadline=1000)
    assert fetched(world, 8) == [("snapshot", 5)]
    assert world.device(8).live._whole(spec(world.keys)).shape == (3 * PARAMETERS,)


def test_a_device_that_slept_takes_the_cheaper_of_deltas_and_key_frame() -> None:
    """One delta before a key frame has fewer bytes than its snapshot; fifteen have more."""
    world, _ = make_world(fleet(), rounds("default", 17))
    world.run(world.rounds_ended(1), deadline=1000)
    world.crash(7)
    world.run(lambda world: world.device(8).live.version == 15, deadline=20_000)
    world.crash(8)
    world.run(world.rounds_ended(17), deadline=20_000)
    before = {index: fetched(world, index) for index in (7, 8)}
    world.start(7)
    world.start(8)
    world.run(agreed(world), deadline=1000)
    slept = {index: [item for item in fetched(world, index) if item not in before[index]] for index in (7, 8)}
    assert slept[7] == [("snapshot", 16), ("delta", 17)]
    assert slept[8] == [("delta", 16), ("delta", 17)]


def test_a_device_that_joins_before_the_first_key_frame_replays_everything() -> None:
    world, _ = make_world(fleet(), rounds("default", 5))
    world.crash(8)
    world.run(world.rounds_ended(5), deadline=2000)
    world.start(8)
    world.run(agreed(world), deadline=1000)
    assert fetched(world, 8) == [("delta", version) for version in range(1, 6)]


@pytest.mark.parametrize("total", [6, 20])
def test_a_device_whose_model_is_another_begins_again(total: int) -> None:
    """Its record is sound, but not the fleet's: no delta fits it."""
    world, _ = make_world(fleet(), rounds("default", total))
    world.run(world.rounds_ended(total - 1), deadline=20_000)
    world.crash(8)
    record = _Record.from_body(world.records[8].data[RECORD])
    other = np.full(PARAMETERS, 0.5, np.float32)
    world.records[8].data[RECORD] = replace(record, hash=model_hash(other), flat=snapshot(other)).to_body()
    world.start(8)
    world.run(agreed(world), deadline=2000)


def test_a_delta_that_was_changed_on_the_way_is_refused_and_the_model_is_reached_all_the_same() -> None:
    world, _ = make_world(fleet(), rounds("default", 20))
    topics = Topics(world.keys.fleet)
    spoilt: list[Publish] = []

    def tamper(sender: int, publish: Publish) -> Iterable[Publish]:
        at = topics.parse(publish.topic)
        if at.kind == "model" and at.name == "delta" and at.version == 18 and publish.payload and not spoilt:
            spoilt.append(publish)
            return [replace(publish, payload=publish.payload[:-80] + bytes(8) + publish.payload[-72:])]
        return [publish]

    world.tamper = tamper
    world.run(lambda world: bool(spoilt), deadline=20_000)
    world.run_for(5)
    assert any("delta" in why for why in world.why(8)), world.why(8)
    world.tamper = lambda sender, publish: [publish]
    world.broker.publish(0, spoilt[0].topic, spoilt[0].payload, True)
    world.run(agreed(world), deadline=20_000)


@pytest.mark.parametrize(
    "codecs",
    [
        (("plain", PROFILE), ("default", PROFILE), ("plain", PROFILE)),
        (("default", PROFILE), ("plain", PROFILE), ("fast", PROFILE)),
        (("fast", ADAM), ("default", PROFILE), ("thrift", PROFILE)),
        (("plain", ADAM), ("fast", ADAM), ("fast", PROFILE)),
    ],
)
def test_a_fleet_changes_its_codec_and_joiners_follow(codecs: tuple[tuple[Codec, ServerOptimizer], ...]) -> None:
    world, _ = make_world(fleet(), rounds(codecs[0][0], 9, server_optimizer=codecs[0][1]))
    for number, (codec, optimizer) in enumerate(codecs, start=1):
        before = version_of(world)[0]
        world.crash(0)
        world.rounds = rounds(codec, 9 * number, server_optimizer=optimizer)
        world.start(0)
        world.crash(8)
        world.run(lambda world: world.conductor.finished, deadline=20_000)
        world.start(8)
        world.run(agreed(world), deadline=2000)
        assert version_of(world)[0] >= before + 7


# ---- residuals against an exact model


def uploads_of(world: World, index: int) -> list[int]:
    """Rounds in which a device sent an upload."""
    topics = Topics(world.keys.fleet)
    parsed = [topics.parse(sent.topic) for sent in world.broker.log if sent.sender == index]
    return sorted({at.round_number for at in parsed if at.kind == "up" and at.name == "upload" and at.chunk == 0})


def whole_updates(world: World, learners: Learners, index: int) -> tuple[dict[int, NDArray[np.float32]], Any]:
    """What a device's uploads must have encoded, by round, and the residual after all of them."""
    plans = {plan.round: (plan, plan_hash) for plan, plan_hash in _plans(world)}
    ended = {result.round: result for result in results(world)}
    residual, wholes = None, {}
    for number in uploads_of(world, index):
        plan, plan_hash = plans[number]
        whole = learners.deltas[index, number] + (0 if residual is None else residual)
        wholes[number] = whole
        result = ended[number]
        if result.outcome == APPLIED:
            grid = Grid(PARAMETERS, plan.coords, plan_hash)
            residual = grid.dropped(grid.rotated(whole)) if result.includes(index) else whole
    return wholes, residual


def _plans(world: World) -> list[tuple[Plan, bytes]]:
    topics, fleet_id = Topics(world.keys.fleet), world.keys.fleet
    frames = [
        Frame.from_bytes(s.payload) for s in world.broker.log if s.payload and topics.parse(s.topic).kind == "plan"
    ]
    return [(read(frame, Plan), frame.hash(fleet_id)) for frame in frames]


def check_sums(world: World, learners: Learners) -> None:
    """Every opened sum is that of the included devices' updates and residuals; every residual is what it must be."""
    wholes = {index: whole_updates(world, learners, index) for index in world.keys.participants()}
    plans = {plan.round: (plan, plan_hash) for plan, plan_hash in _plans(world)}
    deltas = _deltas(world)
    for result in results(world):
        if result.outcome != APPLIED:
            continue
        plan, plan_hash = plans[result.round]
        grid, total = Grid(PARAMETERS, plan.coords, plan_hash), np.zeros(plan.coords, np.int64)
        for index in positions(result.included):
            vector = encode_rotated(
                grid.rotated(wholes[index][0][result.round]),
                1.0,
                LocalReport(1, 0.5, 1, 0.5, 1),
                grid=grid,
                index=index,
                bits=16,
                clip=plan.clip,
                step=plan.step,
                checksum_seed=bytes(32),
            )
            total += signed(vector.body, 16)[: plan.coords]
        delta = deltas[result.version]
        assert pack_opened(total, delta.bits) == delta.body, f"round {result.round}, seed {world.seed}"
    for index in world.keys.participants():
        found, expected = world.device(index).participant._residual.vector(), wholes[index][1]
        assert (found is None) == (expected is None)
        assert found is None or np.array_equal(found, expected), f"device {index}, seed {world.seed}"


def _deltas(world: World) -> dict[int, Delta]:
    topics = Topics(world.keys.fleet)
    found = {}
    for sent in world.broker.log:
        at = topics.parse(sent.topic)
        if sent.payload and at.kind == "model" and at.name == "delta":
            found[at.version] = read(Frame.from_bytes(sent.payload), Delta)
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("codec", ["default", "thrift"])
def test_no_part_of_an_update_is_lost_or_said_twice_whatever_happens(seed: int, codec: Codec) -> None:
    """Crashes at any action, lost and late messages, uploads that come too late, rounds with too few devices."""
    chance = random.Random(seed)
    crashes = {
        (chance.randint(0, 8), chance.randint(10, 150)): Crash(
            chance.choice((None, 0, 1, 2, 3)), chance.uniform(0.1, 20)
        )
        for _ in range(chance.randint(0, 12))
    }
    faults = Faults(chance.uniform(0, 0.05), 0.1, 0.1, chance.uniform(0.1, 6.0), lambda topic: "/result/" not in topic)
    world, learners = make_world(
        fleet(smallest_survivor_set=3),
        rounds(codec, 8, enough=0.6, patience=2.0),
        seed=seed,
        faults=faults,
        crashes=crashes,
    )
    world.training_time = lambda index, plan: chance.uniform(0.5, 35.0) if chance.random() < 0.3 else 1.0
    for index in world.keys.participants():
        if chance.random() < 0.5:
            at = world.now + chance.uniform(20, 200)
            world.at(at, lambda index=index: world.crash(index, keep_session=True))  # type: ignore[misc]
            world.at(at + chance.uniform(5, 150), lambda index=index: world.start(index))  # type: ignore[misc]
    world.run(lambda world: 0 in world.nodes and world.conductor.finished, deadline=40_000)
    world.faults, world.crashes = Faults(), {}
    # Naps that began late end in this time.
    world.run_for(400)
    for index in world.keys.credentials:
        world.start(index)
    world.run(agreed(world), deadline=2000)
    world.run_for(GRACE)
    check_sums(world, learners)
